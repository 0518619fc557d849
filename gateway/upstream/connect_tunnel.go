package upstream

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	// streamID is the one stream of a tunnel's connection.
	streamID = 1
	// initialWindow is every window before anyone says otherwise (RFC 9113 6.9.2).
	initialWindow = 65535
	// tunnelWindow is how much an endpoint may send ahead of the client, and so the most that is buffered for a tunnel.
	tunnelWindow = 256 << 10
	// keptBuffer is the largest receive buffer that a tunnel with nothing to read keeps: most tunnels are idle.
	keptBuffer = 4 << 10
	// maxFramePayload bounds the frames that are sent and taken. No endpoint's SETTINGS_MAX_FRAME_SIZE is lower (RFC 9113 6.5.2), and a
	// higher one is not used, because a frame holds up all others.
	maxFramePayload = 16 << 10
	// maxContinuations bounds the frames of one field block: empty ones cost the endpoint next to nothing.
	maxContinuations = 256
	// maxUnanswered bounds the PING and SETTINGS frames whose answers wait to be written.
	maxUnanswered = 64
	// farewellTime bounds the last frame on a connection about to close.
	farewellTime = 100 * time.Millisecond
	// maxWindow is the largest a window may be (RFC 9113 6.9.1).
	maxWindow = 1<<31 - 1
)

var (
	errHeadTooLarge = protocolError{http2.ErrCodeEnhanceYourCalm, fmt.Sprintf("response headers exceeded %d bytes", MaxResponseHeaderBytes)}
	errSentEnd      = errors.New("the tunnel's sending side is closed")
)

// protocolError is an endpoint's breach of HTTP/2, with the code that it is told.
type protocolError struct {
	code http2.ErrCode
	text string
}

// Error says what the endpoint did.
func (e protocolError) Error() string { return e.text + " (" + e.code.String() + ")" }

// h2Tunnel is the one stream of an HTTP/2 connection, as raw bytes.
//
// Whoever opens the tunnel reads frames until the response head is there; then a goroutine of its own does, so that windows and pings are
// served while nobody reads. That goroutine writes nothing but a farewell: an endpoint that does not read could stop it, and with it the bytes
// that the endpoint waits to get rid of. What it has to answer is pending until flush, which runs only while there is something, has
// written it.
//
// The context, Close and every error end the connection, and with it the goroutines.
type h2Tunnel struct {
	ctx    context.Context
	conn   net.Conn
	detach func() bool // takes ctx's hold off the connection

	// The reading side, for who reads frames at the time.
	framer     *http2.Framer
	decoder    *hpack.Decoder
	headBudget int  // what is left for heads, interim ones included
	headed     bool // the final head was there
	extended   bool // the endpoint takes extended CONNECT

	wrote atomic.Bool // the request may have reached the endpoint

	writing  sync.Mutex // held while a frame is written
	writeErr error      // why nothing can be written any more; guarded by writing

	mu     sync.Mutex // guards what follows
	change *sync.Cond // something below changed

	data       bytes.Buffer // came and was not read yet
	recvWindow int64        // what the endpoint may send still
	consumed   int64        // what was read since the endpoint last got credit for it
	recvErr    error        // how receiving ended; io.EOF by END_STREAM

	sendWindow int64 // the stream's; settings may make it negative (RFC 9113 6.9.2)
	connWindow int64
	initial    int64  // the endpoint's SETTINGS_INITIAL_WINDOW_SIZE
	headLimit  uint32 // the endpoint's SETTINGS_MAX_HEADER_LIST_SIZE
	sendErr    error  // how sending ended; errSentEnd by CloseWrite

	pending  pending
	flushing bool // a goroutine writes what is pending
	closed   bool // both directions are over: nothing pending matters any more
}

// pending is what is to be written on behalf of the reading side.
type pending struct {
	acks   int // of SETTINGS
	pings  [][8]byte
	credit uint32 // for both windows
}

func (p *pending) empty() bool { return p.acks == 0 && len(p.pings) == 0 && p.credit == 0 }

func newTunnel(ctx context.Context, conn net.Conn) *h2Tunnel {
	t := &h2Tunnel{
		ctx: ctx, conn: conn, decoder: hpack.NewDecoder(4096, nil), headBudget: MaxResponseHeaderBytes,
		recvWindow: tunnelWindow, sendWindow: initialWindow, connWindow: initialWindow, initial: initialWindow,
		headLimit: 1<<32 - 1,
	}
	t.decoder.SetMaxStringLength(MaxResponseHeaderBytes)
	t.framer = http2.NewFramer(conn, bufio.NewReaderSize(conn, 4<<10))
	t.framer.SetMaxReadFrameSize(maxFramePayload)
	t.framer.SetReuseFrames()
	t.change = sync.NewCond(&t.mu)
	t.detach = context.AfterFunc(ctx, func() {
		t.stop(t.fault(context.Cause(ctx)))
		_ = conn.Close()
	})
	return t
}

// fail ends the tunnel: both directions answer with the Fault that it makes of err, and the connection closes.
func (t *h2Tunnel) fail(err error) *exchange.Fault {
	t.detach()
	f := t.fault(err)
	t.stop(f)
	if broken, ok := errors.AsType[protocolError](f.Err); ok {
		t.farewell(func(out *http2.Framer) error { return out.WriteGoAway(0, broken.code, nil) })
	}
	_ = t.conn.Close()
	return f
}

// stop ends what has not ended yet of both directions, and reports whether there was anything.
func (t *h2Tunnel) stop(err error) (open bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.change.Broadcast()
	open = t.recvErr == nil || t.sendErr == nil
	if t.recvErr == nil {
		t.recvErr = err
	}
	if t.sendErr == nil {
		t.sendErr = err
	}
	t.closed = true
	return open
}

// fault classifies an error as client.go does.
func (t *h2Tunnel) fault(err error) *exchange.Fault {
	if cause := context.Cause(t.ctx); cause != nil {
		return exchange.AsFault(cause, exchange.ClientAborted)
	}
	if f, ok := errors.AsType[*exchange.Fault](err); ok {
		return f
	}
	kind := exchange.UpstreamReset
	if isAlert(err) { // in TLS 1.3 an endpoint that wants a client certificate says so only now
		kind = exchange.UpstreamTLS
	} else if _, ok := errors.AsType[protocolError](err); ok {
		kind = exchange.UpstreamProtocol
	}
	f := exchange.NewFault(kind, err)
	f.Retryable = !t.wrote.Load()
	return f
}

// farewell writes a last frame. The deadline is for a frame that is stuck, too.
func (t *h2Tunnel) farewell(frame func(*http2.Framer) error) {
	_ = t.conn.SetWriteDeadline(time.Now().Add(farewellTime))
	_ = t.write(frame)
}

// write writes frames. After an error nothing is written any more: the last frame may have gone out in part.
func (t *h2Tunnel) write(frames func(*http2.Framer) error) error {
	t.writing.Lock()
	defer t.writing.Unlock()
	if t.writeErr == nil {
		t.writeErr = frames(t.framer)
	}
	return t.writeErr
}

// next reads a frame.
func (t *h2Tunnel) next() (http2.Frame, error) {
	frame, err := t.framer.ReadFrame()
	if err == nil {
		return frame, nil
	}
	if code, ok := errors.AsType[http2.ConnectionError](err); ok {
		return nil, protocolError{http2.ErrCode(code), "malformed frame: " + cmp.Or(t.framer.ErrorDetail(), err).Error()}
	}
	if broken, ok := errors.AsType[http2.StreamError](err); ok {
		return nil, protocolError{broken.Code, "malformed frame: " + err.Error()}
	}
	if errors.Is(err, http2.ErrFrameTooLarge) {
		return nil, protocolError{http2.ErrCodeFrameSize, "malformed frame: " + err.Error()}
	}
	return nil, err
}

// read takes frames until the connection ends.
func (t *h2Tunnel) read() {
	for {
		if _, err := t.step(); err != nil {
			_ = t.fail(err)
			return
		}
	}
}

// step reads one frame and does as it says. It returns the head when the frame was a response's.
func (t *h2Tunnel) step() (*connectHead, error) {
	frame, err := t.next()
	if err != nil {
		return nil, err
	}
	switch f := frame.(type) {
	case *http2.HeadersFrame:
		return t.gotHeaders(f)
	case *http2.DataFrame:
		return nil, t.gotData(f)
	case *http2.WindowUpdateFrame:
		return nil, t.gotWindow(f)
	case *http2.SettingsFrame:
		return nil, t.gotSettings(f)
	case *http2.PingFrame:
		if f.IsAck() {
			return nil, nil
		}
		return nil, t.post(func(p *pending) { p.pings = append(p.pings, f.Data) })
	case *http2.RSTStreamFrame:
		return nil, t.gotReset(f)
	case *http2.GoAwayFrame:
		if f.LastStreamID < streamID {
			refused := exchange.NewFault(exchange.UpstreamReset, fmt.Errorf("the endpoint closed the connection (GOAWAY, %s)", f.ErrCode))
			refused.Retryable = true // it says that it did not start (RFC 9113 6.8)
			return nil, refused
		}
	case *http2.PushPromiseFrame:
		return nil, protocolError{http2.ErrCodeProtocol, "the endpoint sent PUSH_PROMISE, which was disabled"}
	}
	return nil, nil // PRIORITY, and what an extension may have added (RFC 9113 5.5)
}

// own refuses frames of streams that nobody opened.
func own(f http2.Frame) error {
	if id := f.Header().StreamID; id != streamID {
		return protocolError{http2.ErrCodeProtocol, fmt.Sprintf("the endpoint sent %s for stream %d, which is not open", f.Header().Type, id)}
	}
	return nil
}

// gotHeaders puts a field block together. After the final head it can only be trailers, which say nothing to a tunnel.
func (t *h2Tunnel) gotHeaders(f *http2.HeadersFrame) (*connectHead, error) {
	if err := own(f); err != nil {
		return nil, err
	}
	last := f.StreamEnded()
	block := bytes.Clone(f.HeaderBlockFragment())
	done := f.HeadersEnded()
	for n := 1; !done; n++ {
		frame, err := t.next()
		if err != nil {
			return nil, err
		}
		more, ok := frame.(*http2.ContinuationFrame) // the Framer refuses anything else here
		if !ok || n > maxContinuations || len(block)+len(more.HeaderBlockFragment()) > MaxResponseHeaderBytes {
			return nil, errHeadTooLarge
		}
		block = append(block, more.HeaderBlockFragment()...)
		done = more.HeadersEnded()
	}
	if t.headed {
		if !last {
			return nil, protocolError{http2.ErrCodeProtocol, "the endpoint sent a second response"}
		}
		return nil, t.received(nil, 0, true)
	}
	head, err := t.decode(block)
	if err != nil {
		return nil, err
	}
	t.headed = head.status >= 200
	if !last {
		return head, nil
	}
	if !t.headed {
		return nil, protocolError{http2.ErrCodeProtocol, "the endpoint ended the stream with an interim response"}
	}
	return head, t.received(nil, 0, true)
}

func (t *h2Tunnel) gotData(f *http2.DataFrame) error {
	if err := own(f); err != nil {
		return err
	}
	if !t.headed {
		return protocolError{http2.ErrCodeProtocol, "the endpoint sent DATA before its response"}
	}
	return t.received(f.Data(), int64(f.Length), f.StreamEnded())
}

// received takes bytes, which counted as size for flow control, and perhaps the end.
func (t *h2Tunnel) received(data []byte, size int64, end bool) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.change.Broadcast()
	switch {
	case t.recvErr == io.EOF:
		return protocolError{http2.ErrCodeStreamClosed, "the endpoint sent more after the end of its stream"}
	case t.recvErr != nil:
		return nil // nobody reads any more
	case size > t.recvWindow:
		return protocolError{http2.ErrCodeFlowControl, "the endpoint sent more than its window allows"}
	}
	t.recvWindow -= size
	t.data.Write(data)
	if end {
		t.recvErr = io.EOF
		return nil
	}
	return t.credit(size - int64(len(data))) // nobody will read the padding
}

// credit gives the endpoint room again, in steps. It is called with mu held.
func (t *h2Tunnel) credit(n int64) error {
	t.consumed += n
	if t.consumed < tunnelWindow/2 || t.recvErr != nil {
		return nil
	}
	back := t.consumed
	t.consumed = 0
	t.recvWindow += back
	return t.postLocked(func(p *pending) { p.credit += uint32(back) })
}

func (t *h2Tunnel) gotWindow(f *http2.WindowUpdateFrame) error {
	window := &t.connWindow
	if f.StreamID != 0 {
		if err := own(f); err != nil {
			return err
		}
		window = &t.sendWindow
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.change.Broadcast()
	if *window += int64(f.Increment); *window > maxWindow {
		return protocolError{http2.ErrCodeFlowControl, "the endpoint opened a window beyond its bound"}
	}
	return nil
}

// gotSettings applies the endpoint's settings and acknowledges them.
func (t *h2Tunnel) gotSettings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	defer t.change.Broadcast()
	if err := f.ForeachSetting(t.set); err != nil {
		return err
	}
	return t.postLocked(func(p *pending) { p.acks++ })
}

// set applies one setting. It is called with mu held.
func (t *h2Tunnel) set(s http2.Setting) error {
	if err := s.Valid(); err != nil {
		return protocolError{http2.ErrCodeProtocol, "malformed settings: " + s.String()}
	}
	switch s.ID {
	case http2.SettingInitialWindowSize:
		t.sendWindow += int64(s.Val) - t.initial
		t.initial = int64(s.Val)
		if t.sendWindow > maxWindow {
			return protocolError{http2.ErrCodeFlowControl, "the endpoint opened a window beyond its bound"}
		}
	case http2.SettingMaxHeaderListSize:
		t.headLimit = s.Val
	case http2.SettingEnableConnectProtocol:
		t.extended = s.Val == 1
	}
	return nil
}

// gotReset ends the tunnel. After a whole answer it says only that our bytes are not wanted (RFC 9113 8.1).
func (t *h2Tunnel) gotReset(f *http2.RSTStreamFrame) error {
	if err := own(f); err != nil {
		return err
	}
	reset := exchange.NewFault(exchange.UpstreamReset, fmt.Errorf("the endpoint reset the stream (%s)", f.ErrCode))
	reset.Retryable = f.ErrCode == http2.ErrCodeRefusedStream && !t.headed
	return reset
}

// post leaves something to be written.
func (t *h2Tunnel) post(add func(*pending)) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.postLocked(add)
}

// postLocked is post with mu held.
func (t *h2Tunnel) postLocked(add func(*pending)) error {
	if t.closed {
		return nil
	}
	add(&t.pending)
	if t.pending.acks+len(t.pending.pings) > maxUnanswered {
		return protocolError{http2.ErrCodeEnhanceYourCalm, "the endpoint sends PING or SETTINGS and does not read the answers"}
	}
	if !t.flushing {
		t.flushing = true
		go t.flush()
	}
	return nil
}

// flush writes what is pending until nothing is.
func (t *h2Tunnel) flush() {
	for {
		t.mu.Lock()
		p := t.pending
		t.pending = pending{}
		if p.empty() || t.closed {
			t.flushing = false
			t.mu.Unlock()
			return
		}
		t.mu.Unlock()
		if err := t.write(p.frames); err != nil {
			_ = t.fail(err)
			return
		}
	}
}

// frames writes it all.
func (p *pending) frames(out *http2.Framer) error {
	for range p.acks {
		if err := out.WriteSettingsAck(); err != nil {
			return err
		}
	}
	for _, data := range p.pings {
		if err := out.WritePing(true, data); err != nil {
			return err
		}
	}
	if p.credit == 0 {
		return nil
	}
	return errors.Join(out.WriteWindowUpdate(0, p.credit), out.WriteWindowUpdate(streamID, p.credit))
}

// Read returns bytes from the endpoint: io.EOF when it ended its side.
func (t *h2Tunnel) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.data.Len() == 0 && t.recvErr == nil {
		t.change.Wait()
	}
	if t.data.Len() == 0 {
		return 0, t.recvErr
	}
	n, _ := t.data.Read(p) // it holds something
	if t.data.Len() == 0 && t.data.Cap() > keptBuffer {
		t.data = bytes.Buffer{}
	}
	return n, t.credit(int64(n))
}

// Write sends bytes to the endpoint as its windows allow.
func (t *h2Tunnel) Write(p []byte) (n int, err error) {
	for len(p) > 0 {
		size, err := t.reserve(len(p))
		if err != nil {
			return n, err
		}
		if err := t.write(func(out *http2.Framer) error { return out.WriteData(streamID, false, p[:size]) }); err != nil {
			return n, t.fail(err)
		}
		n += size
		p = p[size:]
	}
	return n, nil
}

// reserve takes up to n bytes from both windows, waiting until there is room for one.
func (t *h2Tunnel) reserve(n int) (int, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.sendErr == nil {
		if room := min(int64(n), t.sendWindow, t.connWindow, maxFramePayload); room > 0 {
			t.sendWindow -= room
			t.connWindow -= room
			return int(room), nil
		}
		t.change.Wait()
	}
	return 0, t.sendErr
}

// CloseWrite ends the sending side; the other stays open.
func (t *h2Tunnel) CloseWrite() error {
	t.mu.Lock()
	err := t.sendErr
	if err == nil {
		t.sendErr = errSentEnd
	}
	t.mu.Unlock()
	if err == errSentEnd {
		return nil
	}
	if err != nil {
		return err
	}
	if err := t.write(func(out *http2.Framer) error { return out.WriteData(streamID, true, nil) }); err != nil {
		return t.fail(err)
	}
	return nil
}

// Close ends both sides and the connection.
func (t *h2Tunnel) Close() error {
	t.detach()
	if t.stop(net.ErrClosed) {
		t.farewell(func(out *http2.Framer) error { return out.WriteRSTStream(streamID, http2.ErrCodeCancel) })
	}
	_ = t.conn.Close() // may have been closed before
	return nil
}
