package routing

import (
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// names numbers the names of headers and query parameters that a table's rules ask for, so that a request's fields and parameters
// are gone through once, whatever the number of rules and names.
type names struct {
	// known is indexed by key-firstName.
	known []name
	// headers is keyed by the name in lower case, query by the name as it is.
	headers map[string]uint32
	query   map[string]uint32
	// byID are the keys of well-known field names, 0 where no rule asks; nil when none does.
	byID []uint32
	// lengths has bit min(length, 63) set for every other header name. It spares most fields the look-up.
	lengths uint64
}

type name struct {
	text  string
	query bool
}

func lengthBit(name string) uint64 { return 1 << min(len(name), 63) }

// header returns the key of a field's name, 0 if no rule asks for it.
func (n *names) header(f *exchange.Field) uint32 {
	if f.ID != exchange.Unknown {
		if n.byID == nil {
			return 0
		}
		return n.byID[f.ID]
	}
	if n.lengths&lengthBit(f.Name) == 0 {
		return 0
	}
	var buf [64]byte
	lower := buf[:0]
	for i := range len(f.Name) {
		c := f.Name[i]
		if 'A' <= c && c <= 'Z' {
			c += 'a' - 'A'
		}
		lower = append(lower, c)
	}
	return n.headers[string(lower)]
}

// fewFacts is how many values a probe holds without allocating.
const fewFacts = 8

// probe is what one request has under the names that the table's rules ask for. The fields are read when a rule first asks for a header,
// the query when one first asks for a parameter, each once. It belongs to one call of Find or Explain.
type probe struct {
	index     *index
	head      *exchange.Head
	headers   bool // the fields were read
	query     bool // the query was read
	few       [fewFacts]fact
	count     int
	more      map[uint32]*fact // beyond fewFacts
	moreOrder []uint32
}

// fact is one value that the request has.
type fact struct {
	key   uint32
	value string
	// pending says that value is not final: a header has further lines to be joined, a parameter is still encoded.
	pending bool
}

// value returns what the request has under a key.
func (p *probe) value(key uint32) (string, bool) {
	if key == keyMethod {
		return p.head.Method, true
	}
	name := &p.index.names.known[key-firstName]
	if name.query {
		p.readQuery()
	} else {
		p.readHeaders()
	}
	f := p.fact(key)
	if f == nil {
		return "", false
	}
	if f.pending {
		if name.query {
			f.value = string(unescape(nil, f.value))
		} else {
			f.value, _ = p.head.Fields.Lookup(name.text)
		}
		f.pending = false
	}
	return f.value, true
}

// keys yields the keys under which the request has a value.
func (p *probe) keys(yield func(uint32) bool) {
	p.readQuery()
	p.readHeaders()
	for i := range p.count {
		if !yield(p.few[i].key) {
			return
		}
	}
	for _, key := range p.moreOrder {
		if !yield(key) {
			return
		}
	}
	yield(keyMethod)
}

func (p *probe) fact(key uint32) *fact {
	for i := range p.count {
		if p.few[i].key == key {
			return &p.few[i]
		}
	}
	return p.more[key]
}

func (p *probe) add(f fact) {
	if p.count < fewFacts {
		p.few[p.count] = f
		p.count++
		return
	}
	if p.more == nil {
		p.more = make(map[uint32]*fact)
	}
	own := f // f itself would be moved to the heap on every call
	p.more[f.key] = &own
	p.moreOrder = append(p.moreOrder, f.key)
}

func (p *probe) readHeaders() {
	if p.headers {
		return
	}
	p.headers = true
	names := &p.index.names
	fields := p.head.Fields
	for i := range fields {
		key := names.header(&fields[i])
		if key == 0 {
			continue
		}
		if f := p.fact(key); f != nil {
			f.pending = true
			continue
		}
		p.add(fact{key: key, value: fields[i].Value})
	}
}

// readQuery takes the first value of each parameter. The grammar is that of forms: pairs between '&', the name up to the first '=',
// '+' for a space; a parameter without '=' has the value "". Nothing is malformed: what is no escape stands for itself.
func (p *probe) readQuery() {
	if p.query {
		return
	}
	p.query = true
	names := p.index.names.query
	var buf [64]byte
	for rest := p.head.Query(); rest != ""; {
		var pair string
		pair, rest, _ = strings.Cut(rest, "&")
		text, value, _ := strings.Cut(pair, "=")
		var key uint32
		if escaped(text) {
			key = names[string(unescape(buf[:0], text))]
		} else {
			key = names[text]
		}
		if key == 0 || p.fact(key) != nil {
			continue
		}
		p.add(fact{key: key, value: value, pending: escaped(value)})
	}
}

func escaped(s string) bool {
	return strings.IndexByte(s, '%') >= 0 || strings.IndexByte(s, '+') >= 0
}

// unescape appends s to buf with %xx and '+' decoded.
func unescape(buf []byte, s string) []byte {
	for i := 0; i < len(s); i++ {
		c := s[i]
		switch c {
		case '+':
			c = ' '
		case '%':
			if i+2 < len(s) {
				high, low := unhex(s[i+1]), unhex(s[i+2])
				if high >= 0 && low >= 0 {
					c = byte(high<<4 | low)
					i += 2
				}
			}
		}
		buf = append(buf, c)
	}
	return buf
}

// unhex returns the value of a hex digit, or -1.
func unhex(c byte) int {
	switch {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}
