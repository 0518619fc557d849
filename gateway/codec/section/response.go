package section

import (
	"fmt"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Response builds a response head, interim ones included. The zero value is ready for Begin.
type Response struct {
	lines
	response *exchange.Response
	seen     uint8
}

// Begin starts a section; response is overwritten, its list of fields in place.
func (b *Response) Begin(response *exchange.Response, limits Limits) {
	response.Status = 0
	b.begin(&response.Fields, limits)
	b.response, b.seen = response, 0
}

// Add takes the next field; name and value must live as long as the response. After an error it returns the same one.
func (b *Response) Add(name, value string) error {
	if err := Check(name, value); err != nil {
		b.err = first(b.err, err)
	}
	return b.AddKnown(Known{Name: name, Value: value, ID: exchange.IDOf(name)})
}

// AddKnown is Add for a field that Check has passed.
func (b *Response) AddKnown(f Known) error {
	if err := b.admit(f.Name, f.Value); err != nil {
		return err
	}
	if f.Name[0] != ':' {
		b.seen |= seenRegular
		return b.take(f, false)
	}
	if f.Name != ":status" || b.seen != 0 {
		return b.refuse(fmt.Sprintf("the pseudo-field %.40q is out of place", f.Name))
	}
	b.seen |= seenStatus
	if b.response.Status = parseStatus(f.Value); b.response.Status == 0 {
		return b.refuse(fmt.Sprintf("malformed status %.10q", f.Value))
	}
	return nil
}

// parseStatus reads three digits (RFC 9110 15), 0 for anything else.
func parseStatus(value string) int {
	if len(value) != 3 || value[0] < '1' || value[0] > '9' || value[1]-'0' > 9 || value[2]-'0' > 9 {
		return 0
	}
	return int(value[0]-'0')*100 + int(value[1]-'0')*10 + int(value[2]-'0')
}

// Finish checks the head as a whole and returns its content-length, -1 without. Whether a body of that length follows depends on the
// request's method and on the status.
func (b *Response) Finish() (length int64, err error) {
	switch {
	case b.err != nil:
		return -1, b.err
	case b.seen&seenStatus == 0:
		return -1, b.refuse("it has no status")
	case b.response.Status == 101:
		return -1, b.refuse("the status is 101, which HTTP/2 and HTTP/3 do not have")
	}
	return b.length, nil
}
