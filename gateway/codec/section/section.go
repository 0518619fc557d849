// Package section is what the field sections of HTTP/2 and HTTP/3 share: the rules that turn a list of decoded fields into a request
// head, a response head or trailers, and refuse what breaks them (RFC 9113 8.2 and 8.3, RFC 9114 4.2 and 4.3); the Huffman code of their
// strings; and the memory that their strings are decoded into.
//
// Names and values go in one by one, as the decompression finds them, and a checked exchange.Head, exchange.Response or
// exchange.Fields comes out. The package knows neither frames nor how fields are compressed.
//
// A section that breaks a rule is malformed. Nothing of it may be used, because another hop could read it as another message:
//
//	:method GET, :path /, a "b\r\nc: d"    in HTTP/1.1 two fields
//	:path /a, :path /b                     which of them was authorized?
//	content-length 5, content-length 6     where does the next message begin?
package section

import (
	"errors"
	"fmt"
	"strings"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// Limits bound one field section. They hold while it is decoded, so that a few bytes that refer to large fields cannot make many.
type Limits struct {
	// Bytes bounds the sum of name, value and Overhead of every field, as SETTINGS_MAX_HEADER_LIST_SIZE counts (RFC 9113 6.5.2).
	Bytes int
	// Fields bounds the number of fields, pseudo-fields included.
	Fields int
}

// Overhead is what each field counts for beside its name and value.
const Overhead = 32

// ErrTooLarge is a section over its Limits. A server answers 431; with HTTP/2 and HTTP/3's dynamic tables the rest of the section must still
// be decompressed.
var ErrTooLarge = errors.New("the field section is over the limit for its bytes or fields")

// Malformed is a section that breaks the protocol: a stream error of PROTOCOL_ERROR or H3_MESSAGE_ERROR, or an answer 400.
type Malformed string

// Error says which rule was broken.
func (m Malformed) Error() string { return "malformed field section: " + string(m) }

// Known is a field line whose name and value are known to be well-formed, with the well-known number of its name; see Check.
type Known = exchange.Field

// lines is what requests, responses and trailers have in common.
type lines struct {
	fields *exchange.Fields
	limits Limits
	bytes  int
	count  int
	length int64 // of content-length; -1 without
	err    error // the first one; it stays
}

func (l *lines) begin(fields *exchange.Fields, limits Limits) {
	*fields = (*fields)[:0]
	*l = lines{fields: fields, limits: limits, length: -1}
}

// Size returns how many bytes of the limit the section has taken so far.
func (l *lines) Size() int { return l.bytes }

// admit counts a field.
func (l *lines) admit(name, value string) error {
	if l.err != nil {
		return l.err
	}
	l.bytes += len(name) + len(value) + Overhead
	l.count++
	if l.bytes > l.limits.Bytes || l.count > l.limits.Fields {
		l.err = ErrTooLarge
	}
	return l.err
}

func (l *lines) refuse(text string) error {
	l.err = Malformed(text)
	return l.err
}

// take adds a well-formed field that is not a pseudo-field.
func (l *lines) take(f Known, request bool) error {
	switch f.ID {
	case exchange.Connection, exchange.KeepAlive, exchange.ProxyConnection, exchange.TransferEncoding, exchange.Upgrade:
		return l.refuse(fmt.Sprintf("it has the field %q, which the protocol forbids", f.Name))
	case exchange.TE:
		if !request || !strings.EqualFold(f.Value, "trailers") {
			return l.refuse("the field te is forbidden, but for \"trailers\" in a request")
		}
	case exchange.ContentLength:
		if l.length >= 0 {
			return l.refuse("it has more than one content-length")
		}
		if l.length = ParseLength(f.Value); l.length < 0 {
			return l.refuse(fmt.Sprintf("the content-length %.40q is no number of bytes", f.Value))
		}
	}
	*l.fields = append(*l.fields, f)
	return nil
}

// ParseLength reads a content-length: digits and nothing else (RFC 9110 8.6). It returns -1 for anything else, and for what an int64 does
// not hold.
func ParseLength(value string) int64 {
	if len(value) == 0 || len(value) > 19 {
		return -1
	}
	var n uint64
	for i := range len(value) {
		digit := value[i] - '0'
		if digit > 9 {
			return -1
		}
		n = n*10 + uint64(digit)
	}
	if n > 1<<63-1 {
		return -1
	}
	return int64(n)
}

// Trailers builds the fields after a body. It has no pseudo-fields (RFC 9113 8.1).
type Trailers struct{ lines }

// Begin starts a section; fields is overwritten in place.
func (b *Trailers) Begin(fields *exchange.Fields, limits Limits) { b.begin(fields, limits) }

// Add takes a field; name and value must live as long as the trailers. After an error it returns the same one.
func (b *Trailers) Add(name, value string) error {
	if err := Check(name, value); err != nil {
		b.err = first(b.err, err)
	}
	return b.AddKnown(Known{Name: name, Value: value, ID: exchange.IDOf(name)})
}

// AddKnown is Add for a field that Check has passed.
func (b *Trailers) AddKnown(f Known) error {
	if err := b.admit(f.Name, f.Value); err != nil {
		return err
	}
	if f.Name[0] == ':' {
		return b.refuse(fmt.Sprintf("the pseudo-field %.40q stands in trailers", f.Name))
	}
	return b.take(f, false)
}

// Finish returns the first error of the section.
func (b *Trailers) Finish() error { return b.err }

// first returns the error that came first.
func first(before, now error) error {
	if before != nil {
		return before
	}
	return now
}
