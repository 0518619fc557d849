package section

import (
	"fmt"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// The pseudo-fields of a request, and what tells that their time is over.
const (
	seenMethod = 1 << iota
	seenScheme
	seenAuthority
	seenPath
	seenProtocol
	seenHost
	seenStatus
	seenRegular // a field that is not a pseudo-field: no pseudo-field may follow
)

// Request builds a request head. The zero value is ready for Begin.
type Request struct {
	lines
	head *exchange.Head
	host string
	seen uint8
}

// Begin starts a section; head is overwritten, its list of fields in place.
func (b *Request) Begin(head *exchange.Head, limits Limits) {
	*head = exchange.Head{Fields: head.Fields}
	b.begin(&head.Fields, limits)
	b.head, b.host, b.seen = head, "", 0
}

// Add takes the next field; name and value must live as long as the head. After an error it returns the same one, so that a decoder may go
// on without looking.
func (b *Request) Add(name, value string) error {
	if err := Check(name, value); err != nil {
		b.err = first(b.err, err)
	}
	return b.AddKnown(Known{Name: name, Value: value, ID: exchange.IDOf(name)})
}

// AddKnown is Add for a field that Check has passed.
func (b *Request) AddKnown(f Known) error {
	if err := b.admit(f.Name, f.Value); err != nil {
		return err
	}
	if f.Name[0] == ':' {
		return b.pseudo(f.Name, f.Value)
	}
	b.seen |= seenRegular
	if f.ID == exchange.Host {
		if b.seen&seenHost != 0 {
			return b.refuse("it has more than one host")
		}
		b.seen |= seenHost
		b.host = f.Value
		return nil
	}
	return b.take(f, true)
}

// pseudo takes a pseudo-field (RFC 9113 8.3.1, RFC 8441 4).
func (b *Request) pseudo(name, value string) error {
	var bit uint8
	switch name {
	case ":method":
		bit, b.head.Method = seenMethod, value
	case ":scheme":
		bit, b.head.Scheme = seenScheme, value
	case ":authority":
		bit, b.head.Authority = seenAuthority, value
	case ":path":
		bit, b.head.Target = seenPath, value
	case ":protocol":
		bit, b.head.Protocol = seenProtocol, value
	default:
		return b.refuse(fmt.Sprintf("the pseudo-field %.40q is none of a request", name))
	}
	if b.seen&(bit|seenRegular) != 0 {
		return b.refuse(fmt.Sprintf("the pseudo-field %q stands twice, or behind other fields", name))
	}
	b.seen |= bit
	return nil
}

// Finish checks the head as a whole and returns its content-length, -1 without. Head.Authority is the :authority or, in its absence, the host
// field, which is in no case among the fields.
func (b *Request) Finish() (length int64, err error) {
	if b.err != nil {
		return -1, b.err
	}
	h := b.head
	if !ValidToken(h.Method) {
		return -1, b.refuse(fmt.Sprintf("the :method %.40q is not a token", h.Method))
	}
	if err := b.target(); err != nil {
		return -1, err
	}
	switch {
	case b.seen&seenAuthority == 0:
		h.Authority = b.host
	case b.seen&seenHost != 0 && !strings.EqualFold(h.Authority, b.host):
		return -1, b.refuse("its :authority and its host differ")
	}
	// Both schemes have a mandatory authority (RFC 9110 4.2).
	if h.Authority == "" || !exchange.ValidAuthority(h.Authority) {
		return -1, b.refuse(fmt.Sprintf("the authority %.80q is not HOST or HOST:PORT", h.Authority))
	}
	return b.length, nil
}

// target checks :scheme, :path and :protocol against the method.
func (b *Request) target() error {
	h := b.head
	switch {
	case b.seen&seenProtocol != 0:
		if h.Method != "CONNECT" {
			return b.refuse("a :protocol stands with a method other than CONNECT")
		}
		if !ValidToken(h.Protocol) {
			return b.refuse(fmt.Sprintf("the :protocol %.40q is not a token", h.Protocol))
		}
		h.Protocol = strings.ToLower(h.Protocol)
	case h.Method == "CONNECT":
		if b.seen&(seenScheme|seenPath) != 0 {
			return b.refuse("a CONNECT without :protocol has a :scheme or :path")
		}
		return nil
	}
	if h.Scheme != "http" && h.Scheme != "https" {
		return b.refuse(fmt.Sprintf("the :scheme %.40q is neither http nor https", h.Scheme))
	}
	switch {
	case h.Target == "":
		return b.refuse("the :path is missing or empty")
	case h.Target == "*" && h.Method == "OPTIONS":
	case h.Target[0] != '/':
		return b.refuse("the :path does not begin with '/'")
	case !ValidTarget(h.Target):
		return b.refuse("the :path holds a space, a control character or '#'")
	}
	return nil
}
