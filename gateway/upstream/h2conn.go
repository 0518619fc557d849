package upstream

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/gateway/sock"
)

// h2Conn is one connection that attempts share. One goroutine reads from it and one writes to it: an attempt appends its frames to the Output
// and goes on, so that none has to write what is another's, however slow the endpoint reads.
//
// The connection ends by fail, whoever finds the reason: it gets no more streams, those that it has fail, the writer sends GOAWAY, if the
// endpoint still takes it, and closes the socket, which ends the reader.
type h2Conn struct {
	mux  *h2Mux
	line *line
	rw   net.Conn // the line, or TLS over it

	out    h2.Output
	wake   chan struct{} // tells the writer that there is something; has room for one
	over   atomic.Bool   // the writer's last round begins
	hung   atomic.Bool   // the endpoint closed its side
	credit h2.Credit
	tuner  h2.Tuner

	// Of the goroutine that reads.
	reader   h2.Reader
	decoder  h2.Decoder
	settings h2.Settings
	window   h2.Receive // the connection's
	budget   h2.Budget
	refilled uint32 // when, in ticks
	last     uint32 // the last stream that the endpoint serves, by GOAWAY
	readErr  error

	headLimit atomic.Uint32 // SETTINGS_MAX_HEADER_LIST_SIZE
	noTable   atomic.Bool   // the endpoint made its decoder's table smaller at some time
	seen      atomic.Uint32 // when the last frame came, or the first of its streams began, in ticks
	worth     atomic.Int64  // frames sent that explain frames of the endpoint's

	// Of the goroutine that ticks.
	pinged   bool   // a PING is under way
	asked    uint32 // since then
	progress uint64 // of the Output at the last tick
	stuck    uint32 // how many ticks a write has been under way

	mu       sync.Mutex // guards what follows
	streams  h2Table
	reserved int // streams that attempts have, those that are not open yet too
	allowed  int // how many they may have
	next     uint32
	extended bool   // the endpoint takes extended CONNECT
	draining bool   // no more streams
	kept     bool   // it is kept when it has no streams
	used     bool   // it had streams
	ended    bool   // fail was called
	idle     uint32 // since when it has no streams, in ticks
}

const (
	// h2ConnWindow is the connection's receive window. It is given back as bytes come, whether they are read or not, so that a slow client
	// holds up no other; what is buffered is bounded by the streams' windows.
	h2ConnWindow = 16 << 20
	// maxContinuations bounds the CONTINUATION frames of one head: empty ones cost the endpoint next to nothing.
	maxContinuations = 256
	// farewellTime bounds the last write on a connection about to close.
	farewellTime = 100 * time.Millisecond
	// pingAfter is how long an endpoint with streams may be silent before it is asked whether it is alive, and pingTimeout how long it may
	// take to send anything then.
	pingAfter, pingTimeout = 15 * time.Second, 10 * time.Second
	// writeTimeout is how long an endpoint may take nothing of what is sent.
	writeTimeout = 10 * time.Second
	// h2Acts and h2ActsPerSecond are the budget for frames that cost the gateway something and bring nothing; see spend.
	h2Acts, h2ActsPerSecond = 10_000, 1_000
	// actsPerFrame is what a frame that is sent adds to it: its WINDOW_UPDATEs, and the PINGs by which an endpoint measures the path.
	actsPerFrame = 16
)

// greet begins HTTP/2 on a new connection: prefaces are exchanged (RFC 9113 3.4). Nothing is sent before the endpoint's SETTINGS are known, so
// that it gets no more streams than it takes, and an endpoint that speaks something else has got no request.
func (m *h2Mux) greet(life *exchange.Life, l *line, rw net.Conn) (*h2Conn, *exchange.Fault) {
	c := &h2Conn{mux: m, line: l, rw: rw, wake: make(chan struct{}, 1), next: 1, last: h2.MaxStream}
	c.out.Init(rw)
	c.credit.Init()
	c.reader.Init(rw, h2.ReaderLimits{Block: MaxResponseHeaderBytes, Continuations: maxContinuations})
	c.decoder.Init(h2.TableSize)
	c.settings.Init()
	c.window.Init(nil, h2ConnWindow, h2ConnWindow)
	c.budget.Init(h2Acts, h2ActsPerSecond)
	c.refilled = m.dialer.upkeep.ticks.Load()
	c.idle = c.refilled
	c.seen.Store(c.refilled)
	err := l.SetDeadline(time.Now().Add(ConnectTimeout))
	if err == nil {
		if !life.Attach(l) {
			_ = l.Close()
			return nil, over(life)
		}
		err = c.hello()
		if !life.Detach() {
			_ = l.Close()
			return nil, over(life)
		}
	}
	if err == nil {
		err = l.SetDeadline(time.Time{})
	}
	if err == nil {
		go c.write()
		return c, nil
	}
	fault := faultOfConn(err)
	if timeout, ok := errors.AsType[net.Error](err); ok && timeout.Timeout() {
		fault = exchange.NewFault(exchange.UpstreamConnect, fmt.Errorf("the endpoint did not begin HTTP/2 within %v", ConnectTimeout))
	} else if broken, ok := errors.AsType[*h2.ConnError](err); ok {
		_ = l.SetWriteDeadline(time.Now().Add(farewellTime))
		_, _ = rw.Write(h2.AppendGoAway(nil, 0, broken.Code, ""))
	}
	_ = l.Close()
	fault.Retryable = true
	return nil, fault
}

func (c *h2Conn) hello() error {
	hello := append(make([]byte, 0, 128), h2.Preface...)
	hello = h2.AppendSettings(hello,
		h2.Setting{ID: h2.SettingEnablePush, Value: 0},
		h2.Setting{ID: h2.SettingInitialWindowSize, Value: h2Window},
		h2.Setting{ID: h2.SettingMaxHeaderListSize, Value: MaxResponseHeaderBytes},
	)
	hello = h2.AppendWindowUpdate(hello, 0, h2ConnWindow-h2.InitialWindow)
	if _, err := c.rw.Write(hello); err != nil {
		return err
	}
	f, err := c.reader.Next()
	if err != nil {
		return err
	}
	if f.Type != h2.TypeSettings || f.Flags&h2.FlagAck != 0 {
		return &h2.ConnError{Code: h2.ProtocolError, Reason: "the endpoint did not begin with SETTINGS"}
	}
	return c.gotSettings(&f)
}

// faultOfConn is what a connection's end means for its streams.
func faultOfConn(err error) *exchange.Fault {
	if f, ok := errors.AsType[*exchange.Fault](err); ok {
		copied := *f
		return &copied
	}
	kind := exchange.UpstreamReset
	if isAlert(err) { // in TLS 1.3 an endpoint that wants a client certificate says so only now
		kind = exchange.UpstreamTLS
	} else if _, ok := errors.AsType[*h2.ConnError](err); ok {
		kind = exchange.UpstreamProtocol
	}
	f := exchange.NewFault(kind, err)
	f.Retryable = false
	return f
}

// reserve takes a stream for an attempt.
func (c *h2Conn) reserve() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining || c.reserved >= c.allowed {
		return false
	}
	if c.reserved == 0 {
		c.seen.Store(c.mux.dialer.upkeep.ticks.Load()) // it had nothing to say
	}
	c.reserved++
	c.used = true
	return true
}

// release gives a reservation back.
func (c *h2Conn) release() { c.remove(0) }

// open makes an attempt's reservation a stream and returns its identifier, 0 when the connection takes no more. Frames of new streams must be
// sent in the order of their identifiers (RFC 9113 5.1.1): the caller has the Output locked.
func (c *h2Conn) open(s *h2Stream) uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.draining {
		return 0
	}
	id := c.next
	c.next += 2
	c.draining = c.next > h2.MaxStream
	c.streams.put(id, s)
	c.worth.Add(actsPerFrame)
	return id
}

// remove ends a stream, 0 for a reservation that did not become one.
func (c *h2Conn) remove(id uint32) {
	c.mu.Lock()
	if id != 0 {
		c.streams.remove(id)
	}
	c.reserved--
	idle := c.reserved == 0
	if idle {
		c.idle = c.mux.dialer.upkeep.ticks.Load()
	}
	last := idle && (c.draining || !c.kept)
	c.mu.Unlock()
	if last {
		c.expire()
	}
	if c.mux.waiting.Load() > 0 {
		c.mux.serve()
	}
}

// limit returns how many streams the connection has for attempts, free or not.
func (c *h2Conn) limit() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowed
}

// closed reports whether the endpoint allows no streams, but may do so later.
func (c *h2Conn) closed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.allowed == 0 && !c.draining
}

func (c *h2Conn) wasUsed() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.used
}

func (c *h2Conn) takesConnect() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.extended
}

// keep says whether the connection is kept when it has no streams.
func (c *h2Conn) keep(kept bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.kept = kept
}

// errUnused ends a connection that has no streams.
var errUnused = errors.New("the connection is not used any more")

// expire ends the connection if it has no streams and is not to be kept.
func (c *h2Conn) expire() {
	c.mu.Lock()
	last := c.reserved == 0 && (c.draining || !c.kept)
	c.draining = c.draining || last
	c.mu.Unlock()
	if last {
		c.fail(errUnused)
	}
}

// fail ends the connection because of err. It may be called again.
func (c *h2Conn) fail(err error) {
	c.mu.Lock()
	if c.ended {
		c.mu.Unlock()
		return
	}
	c.ended, c.draining = true, true
	open := c.streams.all()
	c.mu.Unlock()
	if err == h2.ErrNotReading {
		err = &h2.ConnError{Code: h2.EnhanceYourCalm, Reason: err.Error()}
	}
	for _, p := range open {
		p.stream.lost(c, p.id, err)
	}
	code := h2.NoError
	if broken, ok := errors.AsType[*h2.ConnError](err); ok {
		code = broken.Code
	}
	c.out.End(h2.AppendGoAway(c.out.Begin(), 0, code, ""))
	_ = c.line.SetWriteDeadline(time.Now().Add(farewellTime))
	c.over.Store(true)
	c.flush()
	c.mux.forget(c, err)
}

// writing takes an error of BeginStream: it ends the connection when it is the connection's.
func (c *h2Conn) writing(err error) error {
	if broken := c.out.Err(); broken != nil {
		c.fail(broken)
	}
	return err
}

// flush has the writer write what was appended.
func (c *h2Conn) flush() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// write is the writer's goroutine.
func (c *h2Conn) write() {
	for range c.wake {
		over := c.over.Load()
		if err := c.out.Flush(); err != nil {
			c.fail(err)
			over = true
		}
		if over {
			break
		}
	}
	c.out.Shut(net.ErrClosed)
	_ = c.line.Close()
}

// openHeaders begins HEADERS. An endpoint that made its table smaller must be told that this was understood (RFC 7541 4.2): each block says
// then that no table is used, which none ever is.
func (c *h2Conn) openHeaders(buf []byte) []byte {
	buf = h2.OpenHeaders(buf)
	if c.noTable.Load() {
		buf = append(buf, emptyTable)
	}
	return buf
}

// emptyTable is a block's first byte that sets the table's size to 0.
const emptyTable = 0x20

// sendReset sends RST_STREAM.
func (c *h2Conn) sendReset(id uint32, code h2.Code) {
	c.out.End(h2.AppendReset(c.out.Begin(), id, code))
	c.flush()
}

// giveBack opens the window of a stream again, and measures the round trip by the way.
func (c *h2Conn) giveBack(id, n uint32) {
	buf := h2.AppendWindowUpdate(c.out.Begin(), id, n)
	if c.tuner.Probe(time.Now().UnixNano()) {
		buf = h2.AppendPing(buf, false, h2.ProbePing())
	}
	c.out.End(buf)
	c.flush()
}

// sentFrame counts a frame of a body.
func (c *h2Conn) sentFrame() { c.worth.Add(actsPerFrame) }

// read reads until the connection ends.
func (c *h2Conn) read() {
	var err error
	if c.rw != net.Conn(c.line) {
		err = c.readOn()
	} else if err = c.frames(); err == nil { // what came with the SETTINGS
		c.line.Watch(c.hungUp)
		if err = c.line.Serve(c.step); c.readErr != nil {
			err = c.readErr
		} else if c.hung.Load() {
			_ = c.line.SetReadDeadline(time.Time{})
			err = c.readOn()
		}
	}
	if err == nil {
		err = io.ErrUnexpectedEOF
	}
	c.reader.Close()
	c.fail(err)
	c.mux.forget(c, err) // which fail may have done before the mux knew the connection
}

// step reads what has arrived.
func (c *h2Conn) step() bool {
	for {
		space := c.reader.Space()
		n, err := c.line.TryRead(space)
		if err == sock.ErrAgain {
			c.reader.Release()
			return true
		}
		if err == nil {
			c.reader.Advance(n)
			err = c.frames()
		}
		if err != nil {
			c.readErr = err
			return false
		}
		if n < len(space) {
			c.reader.Release()
			return true
		}
	}
}

// hungUp has what the endpoint sent last read to its end: an end that comes with bytes brings no call of step of its own.
func (c *h2Conn) hungUp() {
	c.hung.Store(true)
	_ = c.line.SetReadDeadline(time.Unix(1, 0))
}

// readOn reads TLS, whose bytes bring no call of step, and what comes before the end of a connection that the endpoint closed.
func (c *h2Conn) readOn() error {
	for {
		if err := c.frames(); err != nil {
			return err
		}
		c.reader.Release()
		n, err := c.rw.Read(c.reader.Space())
		c.reader.Advance(n)
		if n == 0 && err != nil {
			return err
		}
	}
}

// frames takes the frames that are buffered.
func (c *h2Conn) frames() error {
	c.seen.Store(c.mux.dialer.upkeep.ticks.Load())
	for {
		f, ok, err := c.reader.Buffered()
		if err != nil {
			return err
		}
		if !ok {
			return nil
		}
		if err := c.got(&f); err != nil {
			return err
		}
	}
}

// tick ends what is overdue, at this time in ticks.
func (c *h2Conn) tick(now uint32) {
	c.mu.Lock()
	streams, idle := c.reserved, now-c.idle
	if streams == 0 && idle > idleTicks {
		c.kept = false
	}
	c.mu.Unlock()
	switch {
	case streams == 0:
		c.pinged = false
		c.expire()
	case c.silent(now):
		c.fail(h2Dead(fmt.Sprintf("the endpoint sent nothing within %v of a PING", pingTimeout)))
	case c.stuckWriting():
		c.fail(h2Dead(fmt.Sprintf("the endpoint took nothing of what is sent to it for %v", writeTimeout)))
	}
}

// h2Dead is the end of a connection that stands, to an endpoint that does nothing.
type h2Dead string

// Error says what the endpoint did not do.
func (e h2Dead) Error() string { return string(e) }

// silent asks an endpoint that was silent for long whether it is alive, and reports whether it did not answer.
func (c *h2Conn) silent(now uint32) bool {
	switch {
	case now-c.seen.Load() < uint32(pingAfter/tickPeriod):
		c.pinged = false
	case !c.pinged:
		c.pinged, c.asked = true, now
		c.out.End(h2.AppendPing(c.out.Begin(), false, alivePing))
		c.flush()
	default:
		return now-c.asked >= uint32(pingTimeout/tickPeriod)
	}
	return false
}

// alivePing is what the PING carries that asks whether the endpoint is alive.
var alivePing = [8]byte{'a', 'l', 'i', 'v', 'e'}

// stuckWriting reports whether one write has been under way for too long.
func (c *h2Conn) stuckWriting() bool {
	progress := c.out.Progress()
	if progress&1 == 0 || progress != c.progress {
		c.progress, c.stuck = progress, 0
		return false
	}
	c.stuck++
	return c.stuck >= uint32(writeTimeout/tickPeriod)
}
