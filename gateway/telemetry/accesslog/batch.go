package accesslog

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
	"unsafe"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	// maxText bounds one string of a line; the rest is cut and marked.
	maxText = 4096
	// maxDetail bounds the text of a fault.
	maxDetail = 512
	cutMark   = "..."

	// minShard has room for a line of the longest strings.
	minShard = 64 << 10
	// keepText is the capacity that a text buffer keeps after a burst, and keepFor how many batches in a row must leave most of a larger
	// one unused before it is given back: under load a second's.
	keepText    = 256 << 10
	keepFor     = 50
	recordBytes = int(unsafe.Sizeof(record{}))
)

// The strings of a line that are copied into the text buffer, in the order they stand there.
const (
	textMethod = iota
	textAuthority
	textPath
	textUserAgent
	textRequestID
	textTraceID
	textDetail
	textCount
)

// record is one line before it is encoded. Its strings live as long as the configuration or longer; those that do not are in the
// batch's text, one behind the other.
type record struct {
	second   int64 // the start, Unix time
	nanos    int32 // and its fraction
	proto    exchange.Proto
	took     time.Duration
	bytesIn  int64
	bytesOut int64
	attempts int
	status   int
	route    *exchange.RouteRef
	bind     string
	cluster  string
	endpoint string
	flag     exchange.Kind
	client   netip.AddrPort
	flow     bool              // it is one, and no exchange
	listener string            // of a flow
	lengths  [textCount]uint16 // of the strings in the text
}

func (r *record) endedAt() int64 { return r.second*int64(time.Second) + int64(r.nanos) + int64(r.took) }

// batch is lines in the order their exchanges ended.
type batch struct {
	records []record
	text    []byte
	roomy   int // batches in a row that a smaller text buffer would have done for
}

func (b *batch) size() int { return len(b.text) + len(b.records)*recordBytes }

// reset empties the batch for use again. Buffers that a burst made large are given back when it is over.
func (b *batch) reset() {
	if cap(b.text) > keepText && len(b.text) < cap(b.text)/4 {
		b.roomy++
	} else {
		b.roomy = 0
	}
	if b.roomy == keepFor {
		*b = batch{}
		return
	}
	clear(b.records) // they hold configuration
	b.records, b.text = b.records[:0], b.text[:0]
}

// shard is where some of the exchanges leave their lines.
type shard struct {
	mu     sync.Mutex
	batch       // guarded by mu
	closed bool // guarded by mu
	_      [64]byte
}

// take exchanges the shard's batch for an empty one.
func (s *shard) take(empty batch, last bool) batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	full := s.batch
	s.batch = empty
	s.closed = last
	return full
}

// detailOf returns the cause of a fault, "" when there is none.
func detailOf(fault *exchange.Fault) string {
	if fault == nil || fault.Err == nil {
		return ""
	}
	return fault.Err.Error()
}

// next returns a record that is zero.
func (b *batch) next() *record {
	if len(b.records) == cap(b.records) {
		b.records = slices.Grow(b.records, 1)
	}
	b.records = b.records[:len(b.records)+1] // what is there is zero
	return &b.records[len(b.records)-1]
}

// addFlow copies a flow. Its server name stands where an exchange's authority does.
func (b *batch) addFlow(f *exchange.Flow, took time.Duration, detail string) {
	r := b.next()
	r.flow, r.listener = true, f.Listener
	r.second, r.nanos, r.took = f.Start.Unix(), int32(f.Start.Nanosecond()), took
	r.bytesIn, r.bytesOut, r.attempts = f.BytesIn, f.BytesOut, f.Attempts
	r.proto, r.bind, r.client = f.Peer.Proto, f.Peer.Bind, f.Peer.Remote
	r.route, r.cluster, r.endpoint = f.Route, f.Cluster, f.Endpoint
	if f.Fault != nil {
		r.flag = f.Fault.Kind
	}
	b.put(r, textAuthority, f.ServerName(), maxText)
	b.put(r, textTraceID, f.TraceID, maxText)
	b.put(r, textDetail, detail, maxDetail)
}

// add copies an exchange.
func (b *batch) add(x *exchange.Exchange, e *Entry, detail string, query bool) {
	r := b.next()
	r.second, r.nanos, r.took = x.Start.Unix(), int32(x.Start.Nanosecond()), e.Took
	r.bytesIn, r.bytesOut, r.attempts, r.status = x.BytesIn, x.BytesOut, x.Attempts, x.Resp.Status
	r.proto, r.bind, r.client = x.Peer.Proto, x.Peer.Bind, x.Peer.Remote
	r.route, r.cluster, r.endpoint = x.Route, x.Cluster, x.Endpoint
	if x.Fault != nil {
		r.flag = x.Fault.Kind
	}
	agent, id := agentAndID(x.Req.Fields)
	b.put(r, textMethod, x.Req.Method, maxText)
	b.put(r, textAuthority, e.Authority, maxText)
	b.put(r, textPath, pathOf(&x.Req, query), maxText)
	b.put(r, textUserAgent, agent, maxText)
	b.put(r, textRequestID, id, maxText)
	b.put(r, textTraceID, x.TraceID, maxText)
	b.put(r, textDetail, detail, maxDetail)
}

func (b *batch) put(r *record, i int, s string, limit int) {
	if len(s) > limit {
		b.text = append(append(b.text, s[:limit]...), cutMark...)
		r.lengths[i] = uint16(limit + len(cutMark))
		return
	}
	b.text = append(b.text, s...)
	r.lengths[i] = uint16(len(s))
}

// agentAndID returns the first User-Agent and the first X-Request-Id.
func agentAndID(fields exchange.Fields) (agent, id string) {
	hasAgent, hasID := false, false
	for i := range fields {
		switch fields[i].ID {
		case exchange.UserAgent:
			if !hasAgent {
				agent, hasAgent = fields[i].Value, true
			}
		case exchange.XRequestID:
			if !hasID {
				id, hasID = fields[i].Value, true
			}
		}
	}
	return agent, id
}

// pathOf returns the path as the client sent it, before normalisation and rewriting: what was tried is what the log is read for.
func pathOf(h *exchange.Head, query bool) string {
	if query {
		return h.Target
	}
	if i := strings.IndexByte(h.Target, '?'); i >= 0 {
		return h.Target[:i]
	}
	return h.Target
}

// cursor walks over a batch that was taken.
type cursor struct {
	batch *batch
	text  string // a view of what is left of the batch's text
	next  int
}

func (c *cursor) reset(b *batch) {
	*c = cursor{batch: b, text: unsafe.String(unsafe.SliceData(b.text), len(b.text))}
}

// earliest returns the cursor whose next record ended first, nil when none has one. There are eight cursors at most.
func earliest(cursors []cursor) (first *cursor) {
	for i := range cursors {
		c := &cursors[i]
		if c.next == len(c.batch.records) {
			continue
		}
		if first == nil || c.batch.records[c.next].endedAt() < first.batch.records[first.next].endedAt() {
			first = c
		}
	}
	return first
}

// advance returns the next record and its text.
func (c *cursor) advance() (r *record, text string) {
	r = &c.batch.records[c.next]
	c.next++
	length := 0
	for _, n := range r.lengths {
		length += int(n)
	}
	text, c.text = c.text[:length], c.text[length:]
	return r, text
}
