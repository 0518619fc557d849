package h2

// Priority says in which order a connection's responses are of use to the client (RFC 9218 4).
type Priority struct {
	// Urgency is 0, the most urgent, to 7.
	Urgency uint8
	// Incremental says that the response is of use in pieces, so that several may share the connection.
	Incremental bool
}

// DefaultUrgency is that of a request that says nothing (RFC 9218 4.1).
const DefaultUrgency = 3

// DefaultPriority returns the priority of a request that says nothing.
func DefaultPriority() Priority { return Priority{Urgency: DefaultUrgency} }

// ParsePriority reads a Priority field's value: a dictionary of structured fields (RFC 8941 3.2), of which the members u and i count:
//
//	u=1, i        urgency 1, incremental
//	i=?0;x=1, a   not incremental; parameters and other members are passed over
//
// Members that are malformed or out of range count as absent (RFC 9218 4); the last of several counts.
func ParsePriority(value string) Priority {
	p := DefaultPriority()
	for len(value) > 0 {
		var member string
		member, value = cutMember(value)
		key, item := member, "?1"
		for i := range len(member) {
			if member[i] == '=' || member[i] == ';' {
				key, item = member[:i], "?1"
				if member[i] == '=' {
					item = cutParameters(member[i+1:])
				}
				break
			}
		}
		switch {
		case key == "u" && len(item) == 1 && item[0] >= '0' && item[0] <= '7':
			p.Urgency = item[0] - '0'
		case key == "i" && (item == "?1" || item == "?0"):
			p.Incremental = item == "?1"
		}
	}
	return p
}

// cutMember cuts the first member off a list. A comma within a quoted string would split it wrongly, into members that nobody knows.
func cutMember(value string) (member, rest string) {
	for i := range len(value) {
		if value[i] == ',' {
			return trim(value[:i]), value[i+1:]
		}
	}
	return trim(value), ""
}

func cutParameters(item string) string {
	for i := range len(item) {
		if item[i] == ';' {
			return trim(item[:i])
		}
	}
	return item
}

func trim(s string) string {
	for len(s) > 0 && (s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	for len(s) > 0 && (s[len(s)-1] == ' ' || s[len(s)-1] == '\t') {
		s = s[:len(s)-1]
	}
	return s
}
