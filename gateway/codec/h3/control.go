package h3

import "io"

// Each side opens one control stream (RFC 9114 6.2.1). The client's begins with SETTINGS; after that it may say where server push, which
// the gateway does not do, is to stop, how urgent requests are, and that it is about to leave. It never ends before the connection.

// Kind tells Control's events apart.
type Kind uint8

// The events of a control stream.
const (
	// KindSettings comes first and once.
	KindSettings Kind = iota
	// KindPriority tells anew how urgent the request on a stream is (RFC 9218 7.2).
	KindPriority
	// KindOther is a frame without meaning for a server without push. It is told of because a flood of them is abuse.
	KindOther
)

// Event is what the client said on its control stream.
type Event struct {
	Kind     Kind
	Settings Settings
	Stream   uint64
	Priority Priority
}

const (
	// maxControl bounds the frames that are read whole, in bytes.
	maxControl = maxSettings
	// maxUnknownControl bounds a frame of an unknown type.
	maxUnknownControl = 64 << 10
)

// Control reads a client's control stream, behind its type. The zero value is ready once Source is set.
type Control struct {
	Source io.Reader

	buf     [maxControl + 2*maxVarintLen]byte
	pos     int
	end     int
	settled bool   // SETTINGS were read
	pushID  uint64 // the largest push ID allowed
	goAway  uint64 // one more than the push ID of the last GOAWAY; 0 without
}

// Next waits for the next event. Its errors are *ConnError, or the source's when the connection is over.
func (c *Control) Next() (Event, error) {
	kind, size, err := c.frame()
	if err != nil {
		return Event{}, err
	}
	if !c.settled && kind != typeSettings {
		return Event{}, &ConnError{MissingSettings, "the control stream does not begin with SETTINGS"}
	}
	switch kind {
	case typeSettings, typeGoAway, typeMaxPushID, typeCancelPush, typePriorityUpdate, typePriorityUpdatePsh:
		payload, err := c.payload(size)
		if err != nil {
			return Event{}, err
		}
		return c.event(kind, payload)
	case typeData, typeHeaders, typePushPromise:
		return Event{}, &ConnError{FrameUnexpected, "a frame of a request stands on the control stream"}
	}
	if reserved(kind) {
		return Event{}, &ConnError{FrameUnexpected, "a frame has a type of HTTP/2"}
	}
	if size > maxUnknownControl {
		return Event{}, &ConnError{ExcessiveLoad, "a frame of an unknown type is too long"}
	}
	return Event{Kind: KindOther}, c.skip(int(size))
}

func (c *Control) event(kind uint64, payload []byte) (Event, error) {
	switch kind {
	case typeSettings:
		if c.settled {
			return Event{}, &ConnError{FrameUnexpected, "SETTINGS stand twice"}
		}
		c.settled = true
		settings, err := parseSettings(payload)
		return Event{Kind: KindSettings, Settings: settings}, err
	case typePriorityUpdatePsh:
		return Event{}, &ConnError{IDError, "a priority is about a push that was not promised"}
	}
	id, n := Varint(payload)
	if n == 0 || kind != typePriorityUpdate && n != len(payload) {
		return Event{}, &ConnError{FrameError, "a control frame is shorter or longer than what it holds"}
	}
	switch kind {
	case typeCancelPush:
		return Event{}, &ConnError{IDError, "a push is cancelled that was not promised"}
	case typeMaxPushID:
		if id < c.pushID {
			return Event{}, &ConnError{IDError, "the maximum push ID becomes smaller"}
		}
		c.pushID = id
	case typeGoAway:
		if c.goAway > 0 && id >= c.goAway {
			return Event{}, &ConnError{IDError, "a GOAWAY takes back an earlier one"}
		}
		c.goAway = id + 1
	case typePriorityUpdate:
		if id%4 != 0 {
			return Event{}, &ConnError{IDError, "a priority is about a stream that carries no request"}
		}
		return Event{Kind: KindPriority, Stream: id, Priority: ParsePriority(string(payload[n:]))}, nil
	}
	return Event{Kind: KindOther}, nil
}

// frame reads the type and length of the next frame.
func (c *Control) frame() (kind, size uint64, err error) {
	for {
		kind, n := Varint(c.buf[c.pos:c.end])
		size, m := Varint(c.buf[c.pos+n : c.end])
		if n > 0 && m > 0 {
			c.pos += n + m
			return kind, size, nil
		}
		if err := c.fill(); err != nil {
			return 0, 0, err
		}
	}
}

// payload reads a frame's payload; it is valid until the next read.
func (c *Control) payload(size uint64) ([]byte, error) {
	if size > maxControl {
		return nil, &ConnError{ExcessiveLoad, "a control frame is too long"}
	}
	for c.end-c.pos < int(size) {
		if err := c.fill(); err != nil {
			return nil, err
		}
	}
	payload := c.buf[c.pos : c.pos+int(size)]
	c.pos += int(size)
	return payload, nil
}

func (c *Control) skip(size int) error {
	for {
		n := min(c.end-c.pos, size)
		c.pos += n
		if size -= n; size == 0 {
			return nil
		}
		if err := c.fill(); err != nil {
			return err
		}
	}
}

// fill reads more behind what is there, which is less than the buffer.
func (c *Control) fill() error {
	c.end = copy(c.buf[:], c.buf[c.pos:c.end])
	c.pos = 0
	n, err := c.Source.Read(c.buf[c.end:])
	c.end += n
	switch {
	case n > 0:
		return nil // an error comes again
	case err == io.EOF:
		return ErrClosed
	}
	return err
}

// ErrClosed is the end of a stream that lasts as long as its connection: the control stream, and QPACK's.
var ErrClosed error = &ConnError{ClosedCriticalStream, "a stream was closed that lasts as long as the connection"}

// CheckEncoder takes bytes of the client's QPACK encoder stream (RFC 9204 4.3). The dynamic table has no room, so that the only thing to
// say is that it is to stay so.
func CheckEncoder(p []byte) error {
	for _, b := range p {
		if b != 0x20 { // Set Dynamic Table Capacity, 0
			return &ConnError{EncoderStreamError, "the client inserts into a dynamic table that has no room"}
		}
	}
	return nil
}

// Acknowledgements reads the client's QPACK decoder stream (RFC 9204 4.4). Nothing that the gateway sends refers to a dynamic table, so
// that there is nothing to acknowledge; only cancelled streams may be told of. The zero value is ready.
type Acknowledgements struct{ more int }

// Take takes bytes and returns how many instructions begin in them.
func (a *Acknowledgements) Take(p []byte) (count int, err error) {
	for _, b := range p {
		if a.more > 0 { // within an integer
			a.more++
			if b&0x80 == 0 {
				a.more = 0
			} else if a.more > maxVarintLen {
				return count, &ConnError{DecoderStreamError, "a stream identifier is too large"}
			}
			continue
		}
		if b&0xc0 != 0x40 { // all but Stream Cancellation
			return count, &ConnError{DecoderStreamError, "the client acknowledges what was not sent"}
		}
		count++
		if b&0x3f == 0x3f {
			a.more = 1
		}
	}
	return count, nil
}
