package exchange

import "strings"

// Field is one header or trailer field line as it stood on the wire. Name keeps the spelling received (HTTP/2 and HTTP/3 names
// are lower case by protocol); comparisons ignore case.
type Field struct {
	Name  string
	Value string
	// ID is the well-known name's number, or Unknown. Add and Set fill it in; code that builds a Field by hand must call IDOf.
	ID ID
}

// Fields is a list of field lines in wire order. A nil Fields is an empty list. It is owned by the exchange that holds it and
// is not safe for concurrent use.
type Fields []Field

// Get returns the value of the first field line with the given well-known name, or "".
func (f Fields) Get(id ID) string {
	for i := range f {
		if f[i].ID == id {
			return f[i].Value
		}
	}
	return ""
}

// Has reports whether a field line with the given well-known name is present.
func (f Fields) Has(id ID) bool {
	for i := range f {
		if f[i].ID == id {
			return true
		}
	}
	return false
}

// Lookup returns the combined value of every field line with this name, in any case: one line's value as it is, several joined
// with ", " (RFC 9110 5.2), those of Cookie with "; " (RFC 9113 8.2.3). ok says whether there was any.
func (f Fields) Lookup(name string) (value string, ok bool) {
	id := IDOf(name)
	first := -1
	var joined []string
	for i := range f {
		if !f[i].is(id, name) {
			continue
		}
		switch {
		case first < 0:
			first = i
		case joined == nil:
			joined = append(joined, f[first].Value, f[i].Value)
		default:
			joined = append(joined, f[i].Value)
		}
	}
	switch {
	case first < 0:
		return "", false
	case joined == nil:
		return f[first].Value, true
	case id == Cookie:
		return strings.Join(joined, "; "), true
	default:
		return strings.Join(joined, ", "), true
	}
}

// Add appends a field line.
func (f *Fields) Add(name, value string) {
	*f = append(*f, Field{Name: name, Value: value, ID: IDOf(name)})
}

// AddID appends a field line whose name is the well-known one, for callers that know it.
func (f *Fields) AddID(id ID, name, value string) {
	*f = append(*f, Field{Name: name, Value: value, ID: id})
}

// Set replaces every field line of this name by one, in the place of the first, or appends it.
func (f *Fields) Set(name, value string) {
	id := IDOf(name)
	list := *f
	for i := range list {
		if list[i].is(id, name) {
			list[i].Name, list[i].Value = name, value
			*f = list[:i+1+len(without(list[i+1:], id, name))]
			return
		}
	}
	*f = append(list, Field{Name: name, Value: value, ID: id})
}

// Del removes every field line of this name.
func (f *Fields) Del(name string) { *f = without(*f, IDOf(name), name) }

// DelID removes every field line with this well-known name.
func (f *Fields) DelID(id ID) {
	*f = f.Filter(func(line *Field) bool { return line.ID != id })
}

// Filter keeps, in place, the field lines for which keep answers true and returns the shortened list.
func (f Fields) Filter(keep func(*Field) bool) Fields {
	out := f[:0]
	for i := range f {
		if keep(&f[i]) {
			out = append(out, f[i])
		}
	}
	clear(f[len(out):])
	return out
}

// Clone returns a deep-enough copy: a list of its own over the same immutable strings.
func (f Fields) Clone() Fields {
	if f == nil {
		return nil
	}
	return append(make(Fields, 0, len(f)+4), f...)
}

// Copy returns a list that shares nothing with the one that it is of: views become strings of their own.
func (f Fields) Copy() Fields {
	if len(f) == 0 {
		return nil
	}
	out := make(Fields, len(f))
	for i := range f {
		out[i] = Field{Name: strings.Clone(f[i].Name), Value: strings.Clone(f[i].Value), ID: f[i].ID}
	}
	return out
}

// HasToken reports whether a comma-separated list field (Connection, TE, Upgrade) contains the token, in any case.
func (f Fields) HasToken(id ID, token string) bool {
	for i := range f {
		if f[i].ID != id {
			continue
		}
		for part := range strings.SplitSeq(f[i].Value, ",") {
			if strings.EqualFold(strings.Trim(part, " \t"), token) {
				return true
			}
		}
	}
	return false
}

func without(list Fields, id ID, name string) Fields {
	return list.Filter(func(line *Field) bool { return !line.is(id, name) })
}

func (line *Field) is(id ID, name string) bool {
	if id != Unknown {
		return line.ID == id
	}
	return line.ID == Unknown && len(line.Name) == len(name) && strings.EqualFold(line.Name, name)
}
