package h3

// Priority is how urgent a response is to the client (RFC 9218 4).
type Priority struct {
	// Urgency is from 0, the most urgent, to 7; 3 by default.
	Urgency int8
	// Incremental says that a part of the response is of use before the whole is there.
	Incremental bool
}

// ParsePriority reads a Priority field's value, a dictionary of structured fields (RFC 9651 3.2) of which two entries count:
//
//	u=1, i        {1, true}
//	u=5;x, i=?0   {5, false}
//
// What it does not understand, it passes over: a priority is a hint, and a malformed one is none.
func ParsePriority(value string) Priority {
	p := Priority{Urgency: 3}
	for len(value) > 0 {
		entry := value
		if end := entryEnd(value); end < len(value) {
			entry, value = value[:end], value[end+1:]
		} else {
			value = ""
		}
		for len(entry) > 0 && (entry[0] == ' ' || entry[0] == '\t') {
			entry = entry[1:]
		}
		// Parameters, and space behind the entry, begin where these end.
		item := entry
		for i := range len(entry) {
			if c := entry[i]; c == ';' || c == ' ' || c == '\t' {
				item = entry[:i]
				break
			}
		}
		switch {
		case len(item) == 3 && item[:2] == "u=" && '0' <= item[2] && item[2] <= '7':
			p.Urgency = int8(item[2] - '0')
		case item == "i", item == "i=?1":
			p.Incremental = true
		case item == "i=?0":
			p.Incremental = false
		}
	}
	return p
}

// entryEnd returns where the comma behind the first entry stands; one within a string or an inner list belongs to the entry.
func entryEnd(value string) int {
	quoted, depth := false, 0
	for i := 0; i < len(value); i++ {
		switch c := value[i]; {
		case quoted && c == '\\':
			i++
		case c == '"':
			quoted = !quoted
		case quoted:
		case c == '(':
			depth++
		case c == ')':
			depth--
		case c == ',' && depth == 0:
			return i
		}
	}
	return len(value)
}
