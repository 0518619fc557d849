package h2

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

// sink is a peer that reads when it is told to.
type sink struct {
	mu     sync.Mutex
	writes [][]byte
	begun  chan struct{} // a write has begun; nil: not told
	permit chan error    // a write goes on and returns this; nil: at once
}

func (s *sink) Write(p []byte) (int, error) {
	if s.begun != nil {
		s.begun <- struct{}{}
	}
	var err error
	if s.permit != nil {
		err = <-s.permit
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.writes = append(s.writes, bytes.Clone(p))
	return len(p), err
}

func (s *sink) all() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	return bytes.Join(s.writes, nil)
}

// order returns the streams of the DATA frames in raw.
func order(t *testing.T, raw []byte) (streams []uint32) {
	t.Helper()
	frames, err := readAll(bytes.NewReader(raw), ReaderLimits{Frame: MaxFrameSize})
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range frames {
		streams = append(streams, f.Stream)
	}
	return streams
}

func appendStream(o *Output, turn *Turn, n int) error {
	buf, err := o.BeginStream(turn)
	if err != nil {
		return err
	}
	at := len(buf)
	buf = AppendData(buf, turn.stream, make([]byte, n), false)
	o.Sent(turn, at)
	o.End(buf)
	return nil
}

// What is appended while somebody writes leaves in one write.
func TestOutputGathers(t *testing.T) {
	w := &sink{begun: make(chan struct{}), permit: make(chan error)}
	var o Output
	o.Init(w)
	flushed := make(chan error)
	o.End(AppendPing(o.Begin(), false, [8]byte{1}))
	go func() { flushed <- o.Flush() }()
	<-w.begun
	if o.Progress()%2 != 1 {
		t.Error("a write that is under way is not told")
	}
	for i := range 100 {
		o.End(AppendPing(o.Begin(), false, [8]byte{byte(i)}))
		if err := o.Flush(); err != nil {
			t.Fatal(err)
		}
	}
	w.permit <- nil
	<-w.begun
	w.permit <- nil
	if err := <-flushed; err != nil || len(w.writes) != 2 || len(w.writes[1]) != 100*(FrameHeader+8) {
		t.Errorf("%d writes, %v, want 2", len(w.writes), err)
	}
	if o.Progress() != 4 {
		t.Errorf("progress %d, want 4", o.Progress())
	}
}

// Whoever writes does not do so for others for ever.
func TestOutputWriterIsRelieved(t *testing.T) {
	w := &sink{begun: make(chan struct{}), permit: make(chan error)}
	var o Output
	o.Init(w)
	add := func() { o.End(AppendPing(o.Begin(), false, [8]byte{})) }
	add()
	flushed := make(chan error, 1)
	go func() { flushed <- o.Flush() }()
	for range writerRounds {
		<-w.begun
		add()
		w.permit <- nil
	}
	if err := <-flushed; err != nil {
		t.Fatal(err)
	}
	<-w.begun // another writes on
	w.permit <- nil
	o.Shut(ErrClosed)
	if len(w.writes) != writerRounds+1 {
		t.Errorf("%d writes, want %d", len(w.writes), writerRounds+1)
	}
}

func TestOutputEndStream(t *testing.T) {
	for name, flushFirst := range map[string]bool{"not written yet": false, "written": true} {
		w := &sink{}
		var o Output
		o.Init(w)
		var turn, other Turn
		turn.Init(1)
		other.Init(3)
		if err := errors.Join(appendStream(&o, &turn, 5), appendStream(&o, &other, 6)); err != nil {
			t.Fatal(err)
		}
		want := "[{0 1 1 \x00\x00\x00\x00\x00 5 1 NO_ERROR} {0 0 3 \x00\x00\x00\x00\x00\x00 6 1 NO_ERROR}]"
		if flushFirst {
			if err := o.Flush(); err != nil {
				t.Fatal(err)
			}
			want = "[{0 0 1 \x00\x00\x00\x00\x00 5 1 NO_ERROR} {0 0 3 \x00\x00\x00\x00\x00\x00 6 1 NO_ERROR} {0 1 1  0 1 NO_ERROR}]"
		}
		buf, err := o.BeginStream(&turn)
		if err != nil {
			t.Fatal(err)
		}
		o.End(o.AppendEnd(buf, &turn))
		if err := o.Flush(); err != nil {
			t.Fatal(err)
		}
		if got, err := readAll(bytes.NewReader(w.all()), ReaderLimits{}); err != nil || fmt.Sprint(got) != want {
			t.Errorf("%s: got %q, %v\nwant %q", name, fmt.Sprint(got), err, want)
		}
	}
}

// A Turn that is used again knows nothing of its last stream.
func TestTurnIsNew(t *testing.T) {
	var o Output
	o.Init(&sink{})
	var turn Turn
	turn.Init(1)
	if err := appendStream(&o, &turn, 1); err != nil {
		t.Fatal(err)
	}
	o.Cancel(&turn, io.ErrClosedPipe)
	turn.Init(3)
	buf, err := o.BeginStream(&turn)
	if err != nil {
		t.Fatal(err)
	}
	before := len(buf)
	if buf = o.AppendEnd(buf, &turn); len(buf) != before+FrameHeader {
		t.Error("the end of stream 3 went onto a frame of stream 1")
	}
	o.End(buf)
}

// Streams that wait for room go in the order of their priority.
func TestOutputOrder(t *testing.T) {
	w := &sink{begun: make(chan struct{}), permit: make(chan error)}
	var o Output
	o.Init(w)
	var first Turn
	first.Init(101)
	done := make(chan error, 16)
	go func() { done <- errors.Join(appendStream(&o, &first, 1), o.Flush()) }()
	<-w.begun
	var filler Turn
	filler.Init(103)
	if err := appendStream(&o, &filler, streamRoom); err != nil { // nobody else has room now
		t.Fatal(err)
	}
	waiters := []struct {
		stream   uint32
		priority Priority
	}{
		{1, Priority{3, true}}, {3, Priority{3, true}}, {5, Priority{3, false}}, {7, Priority{1, false}}, {9, Priority{7, false}},
		{11, Priority{0, true}}, {13, Priority{3, false}}, {15, Priority{1, false}},
	}
	turns := make([]Turn, len(waiters))
	for _, i := range []int{0, 1, 6, 3, 4, 5, 2, 7} {
		turns[i].Init(waiters[i].stream)
		o.Prioritize(&turns[i], waiters[i].priority)
		go func() { done <- errors.Join(appendStream(&o, &turns[i], streamRoom), o.Flush()) }()
		await(&o, func() bool { return turns[i].queued })
	}
	w.permit <- nil
	for range 1 + len(waiters) {
		for range 2 { // each is a little more than one write
			<-w.begun
			w.permit <- nil
		}
	}
	for range 1 + len(waiters) {
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	o.Shut(ErrClosed)
	want := []uint32{101, 103, 11, 7, 15, 5, 13, 1, 3, 9}
	if got := order(t, w.all()); !slices.Equal(got, want) {
		t.Errorf("got the order %v, want %v", got, want)
	}
}

// await yields until something guarded by the Output's lock holds.
func await(o *Output, holds func() bool) {
	for {
		o.mu.Lock()
		ok := holds()
		o.mu.Unlock()
		if ok {
			return
		}
	}
}

func TestOutputCancel(t *testing.T) {
	w := &sink{begun: make(chan struct{}), permit: make(chan error)}
	var o Output
	o.Init(w)
	var turns [3]Turn
	for i := range turns {
		turns[i].Init(uint32(2*i + 1))
	}
	go func() { _ = errors.Join(appendStream(&o, &turns[0], streamRoom), o.Flush()) }()
	<-w.begun
	if err := appendStream(&o, &turns[0], streamRoom); err != nil {
		t.Fatal(err)
	}
	results := make([]chan error, 3)
	for i := 1; i < 3; i++ {
		results[i] = make(chan error, 1)
		go func() { results[i] <- appendStream(&o, &turns[i], 1) }()
		await(&o, func() bool { return turns[i].queued })
	}
	cause := errors.New("reset")
	o.Cancel(&turns[1], cause)
	if err := <-results[1]; err != cause {
		t.Errorf("the cancelled stream got %v", err)
	}
	if err := appendStream(&o, &turns[1], 1); err != cause {
		t.Errorf("the cancelled stream goes on: %v", err)
	}
	go func() {
		for range w.begun { // closed below
			w.permit <- nil
		}
	}()
	w.permit <- nil
	if err := <-results[2]; err != nil {
		t.Errorf("the other stream got %v", err)
	}
	o.Shut(ErrClosed)
	close(w.begun)
	if err := appendStream(&o, &turns[2], 1); err != ErrClosed {
		t.Errorf("after Shut: %v", err)
	}
}

func TestOutputFails(t *testing.T) {
	t.Run("write", func(t *testing.T) {
		w := &sink{permit: make(chan error, 1)}
		var o Output
		o.Init(w)
		broken := errors.New("broken")
		w.permit <- broken
		o.End(AppendSettingsAck(o.Begin()))
		if err := o.Flush(); err != broken || o.Err() != broken {
			t.Errorf("got %v, %v", err, o.Err())
		}
		o.End(AppendSettingsAck(o.Begin()))
		if err := o.Flush(); err != broken {
			t.Errorf("then %v", err)
		}
	})
	t.Run("waiting", func(t *testing.T) {
		w := &sink{begun: make(chan struct{}, 9), permit: make(chan error, 9)}
		var o Output
		o.Init(w)
		var a, b Turn
		a.Init(1)
		b.Init(3)
		_ = appendStream(&o, &a, streamRoom)
		go func() { _ = o.Flush() }()
		<-w.begun
		_ = appendStream(&o, &a, streamRoom)
		got := make(chan error)
		go func() { got <- appendStream(&o, &b, 1) }()
		await(&o, func() bool { return b.queued })
		cause := errors.New("gone")
		o.Fail(cause)
		if err := <-got; err != cause {
			t.Errorf("got %v", err)
		}
		close(w.permit)
	})
	t.Run("control", func(t *testing.T) {
		w := &sink{begun: make(chan struct{}), permit: make(chan error)}
		var o Output
		o.Init(w)
		o.End(AppendSettingsAck(o.Begin()))
		go func() { _ = o.Flush() }()
		<-w.begun
		n := 0
		for ; o.Err() == nil && n < 1<<20; n++ {
			o.End(AppendPing(o.Begin(), true, [8]byte{}))
		}
		if err := o.Err(); err != ErrNotReading || n < 1000 || n > controlRoom {
			t.Errorf("after %d answers to PING: %v", n, err)
		}
		w.permit <- nil
	})
}

func TestOutputKick(t *testing.T) {
	w := &sink{begun: make(chan struct{}), permit: make(chan error)}
	var o Output
	o.Init(w)
	o.Kick() // nothing to write
	var turn Turn
	turn.Init(1)
	if err := appendStream(&o, &turn, 1); err != nil {
		t.Fatal(err)
	}
	o.Kick() // who appended that flushes it
	if o.Progress() != 0 {
		t.Error("a stream's frame is written before its Flush")
	}
	o.End(AppendSettingsAck(o.Begin()))
	o.Kick() // returns although the peer does not read
	<-w.begun
	o.Kick()
	w.permit <- nil
	o.Shut(ErrClosed)
	if got := w.all(); len(got) != 2*FrameHeader+1 {
		t.Errorf("got %d bytes", len(got))
	}
}

// Many streams and control frames at once: every frame arrives whole, those of a stream in order, and the last one ends it.
func TestOutputUnderLoad(t *testing.T) {
	r, w := io.Pipe()
	var o Output
	o.Init(w)
	const streams, frames = 20, 200
	var senders sync.WaitGroup
	for i := range streams {
		senders.Go(func() {
			var turn Turn
			turn.Init(uint32(2*i + 1))
			for n := range frames {
				buf, err := o.BeginStream(&turn)
				if err != nil {
					t.Error(err)
					return
				}
				at := len(buf)
				buf = AppendData(buf, turn.stream, append(binary.BigEndian.AppendUint32(nil, uint32(n)), make([]byte, 1000)...), false)
				o.Sent(&turn, at)
				o.End(buf)
				switch n % 3 {
				case 0:
					_ = o.Flush()
				case 1:
					o.End(AppendWindowUpdate(o.Begin(), turn.stream, 1))
					o.Kick()
				}
			}
			buf, err := o.BeginStream(&turn)
			if err != nil {
				t.Error(err)
				return
			}
			o.End(o.AppendEnd(buf, &turn))
			_ = o.Flush()
		})
	}
	go func() {
		senders.Wait()
		o.Shut(ErrClosed)
		_ = w.Close()
	}()
	got, err := readAll(r, ReaderLimits{})
	if err != nil {
		t.Fatal(err)
	}
	next, ended := map[uint32]uint32{}, map[uint32]bool{}
	for _, f := range got {
		if f.Type != TypeData {
			continue
		}
		if ended[f.Stream] {
			t.Fatalf("stream %d goes on behind its end", f.Stream)
		}
		if len(f.Payload) > 0 {
			if n := binary.BigEndian.Uint32([]byte(f.Payload)); n != next[f.Stream] {
				t.Fatalf("stream %d: frame %d in the place of %d", f.Stream, n, next[f.Stream])
			}
			next[f.Stream]++
		}
		ended[f.Stream] = f.Flags&FlagEndStream != 0
	}
	if len(ended) != streams {
		t.Errorf("%d streams, want %d", len(ended), streams)
	}
	for id, ok := range ended {
		if !ok || next[id] != frames {
			t.Errorf("stream %d: %d frames, ended %v", id, next[id], ok)
		}
	}
}

func TestOutputAllocations(t *testing.T) {
	var o Output
	o.Init(io.Discard)
	var turn Turn
	turn.Init(1)
	payload := make([]byte, 200)
	if n := testing.AllocsPerRun(500, func() {
		buf, _ := o.BeginStream(&turn)
		at := len(buf)
		buf = AppendData(buf, 1, payload, false)
		o.Sent(&turn, at)
		o.End(buf)
		buf = o.Begin()
		o.End(AppendWindowUpdate(o.AppendEnd(buf, &turn), 0, 1))
		_ = o.Flush()
	}); n > 0.1 && !raceDetector {
		t.Errorf("%v allocations, want 0", n)
	}
}

// Another implementation reads what is appended.
func TestAppend(t *testing.T) {
	var long bytes.Buffer
	enc := hpack.NewEncoder(&long)
	for i := range 40 {
		_ = enc.WriteField(hpack.HeaderField{Name: fmt.Sprintf("x-%d", i), Value: strings.Repeat("v", 1000), Sensitive: true})
	}
	for _, size := range []int{1, 100, MinFrameSize, 1 << 20} {
		var b []byte
		b = AppendSettings(b, Setting{SettingInitialWindowSize, 7}, Setting{SettingEnableConnect, 1})
		b = AppendSettingsAck(b)
		b = AppendPing(b, true, [8]byte{1, 2})
		b = AppendReset(b, 5, Cancel)
		b = AppendWindowUpdate(b, 7, 9)
		at := len(b)
		b = append(OpenHeaders(b), long.Bytes()...)
		if size > 1 {
			b = SealHeaders(b, at, 3, true, size)
		} else {
			b = SealHeaders(append(b[:at+FrameHeader], long.Bytes()[:20]...), at, 3, true, size)
		}
		b = AppendData(b, 3, []byte("hello"), true)
		b = AppendGoAway(b, 11, EnhanceYourCalm, "calm")

		f := http2.NewFramer(nil, bytes.NewReader(b))
		f.SetMaxReadFrameSize(1 << 20)
		var got []string
		var block []byte
		for {
			frame, err := f.ReadFrame()
			if err == io.EOF {
				break
			}
			if err != nil {
				t.Fatal(err)
			}
			switch frame := frame.(type) {
			case *http2.HeadersFrame:
				block = append(block, frame.HeaderBlockFragment()...)
				if !frame.StreamEnded() || len(frame.HeaderBlockFragment()) > size {
					t.Errorf("size %d: %v", size, frame)
				}
			case *http2.ContinuationFrame:
				block = append(block, frame.HeaderBlockFragment()...)
				if len(frame.HeaderBlockFragment()) > size {
					t.Errorf("size %d: %v", size, frame)
				}
			default:
				got = append(got, fmt.Sprint(frame))
			}
		}
		want := []string{"[FrameHeader SETTINGS len=12]", "[FrameHeader SETTINGS flags=ACK len=0]", "[FrameHeader PING flags=ACK len=8]",
			"[FrameHeader RST_STREAM stream=5 len=4]", "[FrameHeader WINDOW_UPDATE stream=7 len=4]", "[FrameHeader DATA flags=END_STREAM stream=3 len=5]",
			"[FrameHeader GOAWAY len=12]"}
		if !slices.Equal(got, want) {
			t.Errorf("size %d: got %q\nwant %q", size, got, want)
		}
		if !bytes.Equal(block, long.Bytes()[:len(block)]) || size > 1 && len(block) != long.Len() || size == 1 && len(block) != 20 {
			t.Errorf("size %d: the block of %d bytes has come as %d", size, long.Len(), len(block))
		}
	}
}
