package origin

import (
	"bufio"
	"fmt"
	"io"
	"net"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

const (
	streamWindow = 1 << 20
	connWindow   = 1 << 30
)

// echo is one HTTP/2 connection that answers every gRPC call, unary or streaming, with the messages that it is sent.
//
// A gRPC message is five bytes of prefix and its payload, carried in DATA frames that need not respect its borders. So what comes in
// DATA frames goes back in DATA frames, byte for byte, and every method of every service is an echo: the request's fields are never
// looked at, and the response's are the same few bytes each time.
type echo struct {
	framer *http2.Framer
	in     *bufio.Reader
	out    *bufio.Writer
	// window is what we may send on the connection, initial what a new stream may send, frame the longest DATA frame.
	window, initial int64
	frame           int
	streams         map[uint32]*echoStream
	// used is what was received since the connection's window was last opened.
	used uint32
	head []byte
	tail []byte
}

type echoStream struct {
	started, ended bool
	window         int64
	used           uint32
	// pending waits for a window.
	pending []byte
}

// serveGRPC serves one connection.
func serveGRPC(conn net.Conn) error {
	e := &echo{
		in: bufio.NewReaderSize(conn, 64<<10), out: bufio.NewWriterSize(conn, 64<<10),
		window: 65535, initial: 65535, frame: 16384, streams: map[uint32]*echoStream{},
		head: fieldBlock(":status", "200", "content-type", "application/grpc"),
		tail: fieldBlock("grpc-status", "0"),
	}
	e.framer = http2.NewFramer(e.out, e.in)
	e.framer.SetReuseFrames()
	preface := make([]byte, len(http2.ClientPreface))
	if _, err := io.ReadFull(e.in, preface); err != nil || string(preface) != http2.ClientPreface {
		return fmt.Errorf("no HTTP/2 preface: %q, %w", preface, err)
	}
	if err := e.framer.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: streamWindow},
		http2.Setting{ID: http2.SettingMaxConcurrentStreams, Val: 1 << 20}); err != nil {
		return err
	}
	if err := e.framer.WriteWindowUpdate(0, connWindow-65535); err != nil {
		return err
	}
	for {
		// What many streams have to say goes out together, when nothing more is there to be answered.
		if e.in.Buffered() == 0 {
			if err := e.out.Flush(); err != nil {
				return err
			}
		}
		f, err := e.framer.ReadFrame()
		if err != nil {
			return err
		}
		if err := e.take(f); err != nil {
			return err
		}
	}
}

// fieldBlock encodes names and values without touching the peer's dynamic table, so that one block fits every stream.
func fieldBlock(pairs ...string) []byte {
	var b writer
	enc := hpack.NewEncoder(&b)
	enc.SetMaxDynamicTableSize(0)
	for i := 0; i < len(pairs); i += 2 {
		// Writing to memory cannot fail.
		_ = enc.WriteField(hpack.HeaderField{Name: pairs[i], Value: pairs[i+1]})
	}
	return b
}

type writer []byte

func (w *writer) Write(p []byte) (int, error) {
	*w = append(*w, p...)
	return len(p), nil
}

func (e *echo) take(f http2.Frame) error {
	switch f := f.(type) {
	case *http2.SettingsFrame:
		return e.settings(f)
	case *http2.PingFrame:
		if !f.IsAck() {
			return e.framer.WritePing(true, f.Data)
		}
	case *http2.WindowUpdateFrame:
		return e.opened(f)
	case *http2.RSTStreamFrame:
		delete(e.streams, f.StreamID)
	case *http2.HeadersFrame:
		s := e.streams[f.StreamID]
		if s == nil {
			s = &echoStream{window: e.initial}
			e.streams[f.StreamID] = s
		}
		s.ended = f.StreamEnded()
		return e.send(f.StreamID, s, nil)
	case *http2.DataFrame:
		s := e.streams[f.StreamID]
		if s == nil {
			return nil // reset by the client
		}
		s.ended = f.StreamEnded()
		if err := e.received(f, s); err != nil {
			return err
		}
		return e.send(f.StreamID, s, f.Data())
	}
	return nil
}

func (e *echo) settings(f *http2.SettingsFrame) error {
	if f.IsAck() {
		return nil
	}
	if v, ok := f.Value(http2.SettingInitialWindowSize); ok {
		for _, s := range e.streams {
			s.window += int64(v) - e.initial
		}
		e.initial = int64(v)
	}
	if v, ok := f.Value(http2.SettingMaxFrameSize); ok {
		e.frame = int(v)
	}
	return e.framer.WriteSettingsAck()
}

// received opens the windows again, in large steps.
func (e *echo) received(f *http2.DataFrame, s *echoStream) error {
	e.used += f.Length
	s.used += f.Length
	if e.used > connWindow/4 {
		if err := e.framer.WriteWindowUpdate(0, e.used); err != nil {
			return err
		}
		e.used = 0
	}
	if s.used > streamWindow/4 && !s.ended {
		if err := e.framer.WriteWindowUpdate(f.StreamID, s.used); err != nil {
			return err
		}
		s.used = 0
	}
	return nil
}

// opened sends what waited for the window.
func (e *echo) opened(f *http2.WindowUpdateFrame) error {
	if f.StreamID != 0 {
		s := e.streams[f.StreamID]
		if s == nil {
			return nil
		}
		s.window += int64(f.Increment)
		return e.send(f.StreamID, s, nil)
	}
	e.window += int64(f.Increment)
	for id, s := range e.streams {
		if len(s.pending) > 0 {
			if err := e.send(id, s, nil); err != nil {
				return err
			}
		}
	}
	return nil
}

// send answers with data, as far as the windows let it, and ends the stream when the client has and nothing waits.
func (e *echo) send(id uint32, s *echoStream, data []byte) error {
	if !s.started {
		s.started = true
		if err := e.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: e.head, EndHeaders: true}); err != nil {
			return err
		}
	}
	waited := len(s.pending) > 0
	if waited {
		s.pending = append(s.pending, data...)
		data = s.pending
	}
	sent := 0
	for sent < len(data) {
		n := min(int64(len(data)-sent), e.window, s.window, int64(e.frame))
		if n <= 0 {
			break
		}
		if err := e.framer.WriteData(id, false, data[sent:sent+int(n)]); err != nil {
			return err
		}
		e.window -= n
		s.window -= n
		sent += int(n)
	}
	if waited {
		s.pending = append(s.pending[:0], data[sent:]...)
	} else {
		s.pending = append(s.pending, data[sent:]...)
	}
	if !s.ended || len(s.pending) > 0 {
		return nil
	}
	delete(e.streams, id)
	return e.framer.WriteHeaders(http2.HeadersFrameParam{StreamID: id, BlockFragment: e.tail, EndHeaders: true, EndStream: true})
}
