package h2

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"golang.org/x/net/http2"
)

// told is a frame as the tests compare it: views are copied, and the pieces of a DATA frame are one.
type told struct {
	Type    Type
	Flags   Flags
	Stream  uint32
	Payload string
	Size    int
	Frames  int
	Code    Code
}

// readAll reads until the first error, which is nil for the end between two frames.
func readAll(src io.Reader, limits ReaderLimits) (frames []told, err error) {
	var r Reader
	r.Init(src, limits)
	defer r.Close()
	more := false
	for {
		f, err := r.Next()
		if err == io.EOF {
			return frames, nil
		}
		if err != nil {
			return frames, err
		}
		if more {
			last := &frames[len(frames)-1]
			last.Payload += string(f.Payload)
			last.Size += f.Size
			last.Frames += f.Frames
			last.Flags |= f.Flags
		} else {
			frames = append(frames, told{f.Type, f.Flags, f.Stream, string(f.Payload), f.Size, f.Frames, f.Code})
		}
		if f.More && (f.Type != TypeData || f.EndStream()) {
			return frames, fmt.Errorf("a piece that is not the last is %+v", f)
		}
		more = f.More
	}
}

// byFramer writes frames with another implementation.
func byFramer(t testing.TB, write func(f *http2.Framer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	f := http2.NewFramer(&b, nil)
	f.AllowIllegalWrites = true
	if err := write(f); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestReader(t *testing.T) {
	block := strings.Repeat("b", 40_000)
	padded := Flags(http2.FlagDataPadded)
	tests := map[string]struct {
		write func(f *http2.Framer) error
		want  []told
	}{
		"data":          {func(f *http2.Framer) error { return f.WriteData(1, true, []byte("hello")) }, []told{{TypeData, 1, 1, "hello", 5, 1, 0}}},
		"empty data":    {func(f *http2.Framer) error { return f.WriteData(1, false, nil) }, []told{{TypeData, 0, 1, "", 0, 1, 0}}},
		"end alone":     {func(f *http2.Framer) error { return f.WriteData(1, true, nil) }, []told{{TypeData, 1, 1, "", 0, 1, 0}}},
		"padded data":   {func(f *http2.Framer) error { return f.WriteDataPadded(1, true, []byte("hi"), make([]byte, 200)) }, []told{{TypeData, padded | 1, 1, "hi", 203, 1, 0}}},
		"padding alone": {func(f *http2.Framer) error { return f.WriteDataPadded(1, true, nil, make([]byte, 3)) }, []told{{TypeData, padded | 1, 1, "", 4, 1, 0}}},
		"no padding":    {func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameData, 9, 1, []byte{0}) }, []told{{TypeData, 9, 1, "", 1, 1, 0}}},
		"largest data":  {func(f *http2.Framer) error { return f.WriteData(1, false, []byte(block[:16384])) }, []told{{TypeData, 0, 1, block[:16384], 16384, 1, 0}}},
		"largest padded": {func(f *http2.Framer) error {
			return f.WriteDataPadded(1, true, []byte(block[:16128]), make([]byte, 255))
		}, []told{{TypeData, padded | 1, 1, block[:16128], 16384, 1, 0}}},
		"priority":        {func(f *http2.Framer) error { return f.WritePriority(3, http2.PriorityParam{StreamDep: 1}) }, []told{{TypePriority, 0, 3, "\x00\x00\x00\x01\x00", 0, 1, 0}}},
		"itself":          {func(f *http2.Framer) error { return f.WritePriority(3, http2.PriorityParam{StreamDep: 3}) }, []told{{TypePriority, 0, 3, "\x00\x00\x00\x03\x00", 0, 1, ProtocolError}}},
		"long priority":   {func(f *http2.Framer) error { return f.WriteRawFrame(http2.FramePriority, 0, 3, make([]byte, 6)) }, []told{{TypePriority, 0, 3, "\x00\x00\x00\x00\x00\x00", 0, 1, FrameSizeError}}},
		"reset":           {func(f *http2.Framer) error { return f.WriteRSTStream(5, http2.ErrCodeCancel) }, []told{{TypeReset, 0, 5, "\x00\x00\x00\x08", 0, 1, 0}}},
		"settings":        {func(f *http2.Framer) error { return f.WriteSettings(http2.Setting{ID: 4, Val: 9}) }, []told{{TypeSettings, 0, 0, "\x00\x04\x00\x00\x00\x09", 0, 1, 0}}},
		"settings ack":    {func(f *http2.Framer) error { return f.WriteSettingsAck() }, []told{{TypeSettings, 1, 0, "", 0, 1, 0}}},
		"ping":            {func(f *http2.Framer) error { return f.WritePing(true, [8]byte{7: 'x'}) }, []told{{TypePing, 1, 0, "\x00\x00\x00\x00\x00\x00\x00x", 0, 1, 0}}},
		"goaway":          {func(f *http2.Framer) error { return f.WriteGoAway(7, 2, []byte("why")) }, []told{{TypeGoAway, 0, 0, "\x00\x00\x00\x07\x00\x00\x00\x02why", 0, 1, 0}}},
		"window update":   {func(f *http2.Framer) error { return f.WriteWindowUpdate(0, 16) }, []told{{TypeWindowUpdate, 0, 0, "\x00\x00\x00\x10", 0, 1, 0}}},
		"window by 0":     {func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameWindowUpdate, 0, 1, make([]byte, 4)) }, []told{{TypeWindowUpdate, 0, 1, "\x00\x00\x00\x00", 0, 1, ProtocolError}}},
		"priority update": {func(f *http2.Framer) error { return f.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1")) }, []told{{TypePriorityUpdate, 0, 0, "\x00\x00\x00\x01u=1", 0, 1, 0}}},
		"unknown":         {func(f *http2.Framer) error { return f.WriteRawFrame(0x42, 0xff, 9, []byte("?")) }, []told{{0x42, 0xff, 9, "?", 0, 1, 0}}},
		"reserved bit":    {func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameData, 0, 1|1<<31, []byte("r")) }, []told{{TypeData, 0, 1, "r", 1, 1, 0}}},
		"headers": {func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("block"), EndHeaders: true, EndStream: true})
		}, []told{{TypeHeaders, 5, 1, "block", 0, 1, 0}}},
		"headers with all": {func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("block"), EndHeaders: true, PadLength: 9, Priority: http2.PriorityParam{StreamDep: 3, Weight: 4}})
		}, []told{{TypeHeaders, 0x2c, 1, "block", 0, 1, 0}}},
		"headers on itself": {func(f *http2.Framer) error {
			return f.WriteHeaders(http2.HeadersFrameParam{StreamID: 3, BlockFragment: []byte("block"), EndHeaders: true, Priority: http2.PriorityParam{StreamDep: 3}})
		}, []told{{TypeHeaders, 0x24, 3, "block", 0, 1, ProtocolError}}},
		"continued": {func(f *http2.Framer) error {
			return errors.Join(
				f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte(block[:100]), EndStream: true, PadLength: 5}),
				f.WriteContinuation(1, false, []byte(block[100:16000])),
				f.WriteContinuation(1, false, nil),
				f.WriteContinuation(1, false, []byte(block[16000:32000])),
				f.WriteContinuation(1, true, []byte(block[32000:])),
				f.WriteData(1, false, []byte("after")))
		}, []told{{TypeHeaders, 0xd, 1, block, 0, 5, 0}, {TypeData, 0, 1, "after", 5, 1, 0}}},
	}
	for name, tc := range tests {
		raw := byFramer(t, tc.write)
		for way, src := range map[string]io.Reader{"at once": bytes.NewReader(raw), "bytewise": iotest.OneByteReader(bytes.NewReader(raw))} {
			got, err := readAll(src, ReaderLimits{})
			if err != nil || fmt.Sprint(got) != fmt.Sprint(tc.want) {
				t.Errorf("%s, %s: got %.200v, %v\nwant %.200v", name, way, got, err, tc.want)
			}
		}
	}
}

func TestReaderRefuses(t *testing.T) {
	raw := func(kind http2.FrameType, flags http2.Flags, stream uint32, payload string) func(f *http2.Framer) error {
		return func(f *http2.Framer) error { return f.WriteRawFrame(kind, flags, stream, []byte(payload)) }
	}
	all := func(writes ...func(f *http2.Framer) error) func(f *http2.Framer) error {
		return func(f *http2.Framer) error {
			for _, w := range writes {
				if err := w(f); err != nil {
					return err
				}
			}
			return nil
		}
	}
	head := raw(http2.FrameHeaders, 0, 1, "b")
	var endless []func(f *http2.Framer) error
	endless = append(endless, head)
	for range 40 {
		endless = append(endless, raw(http2.FrameContinuation, 0, 1, ""))
	}
	tests := map[string]struct {
		write func(f *http2.Framer) error
		want  Code
	}{
		"data on 0":                   {raw(http2.FrameData, 0, 0, ""), ProtocolError},
		"data longer than allowed":    {raw(http2.FrameData, 0, 1, strings.Repeat("d", 16385)), FrameSizeError},
		"headers longer than allowed": {raw(http2.FrameHeaders, 4, 1, strings.Repeat("d", 16385)), FrameSizeError},
		"data with too much padding":  {raw(http2.FrameData, 8, 1, "\x05pad"), ProtocolError},
		"data without pad length":     {raw(http2.FrameData, 8, 1, ""), FrameSizeError},
		"headers on 0":                {raw(http2.FrameHeaders, 4, 0, ""), ProtocolError},
		"headers with much padding":   {raw(http2.FrameHeaders, 12, 1, "\x02b"), ProtocolError},
		"headers without pad length":  {raw(http2.FrameHeaders, 12, 1, ""), FrameSizeError},
		"headers with half priority":  {raw(http2.FrameHeaders, 0x24, 1, "\x00\x00\x00"), FrameSizeError},
		"priority on 0":               {raw(http2.FramePriority, 0, 0, "\x00\x00\x00\x01\x00"), ProtocolError},
		"reset on 0":                  {raw(http2.FrameRSTStream, 0, 0, "\x00\x00\x00\x00"), ProtocolError},
		"short reset":                 {raw(http2.FrameRSTStream, 0, 1, "\x00\x00\x00"), FrameSizeError},
		"settings on a stream":        {raw(http2.FrameSettings, 0, 1, ""), ProtocolError},
		"settings ack with payload":   {raw(http2.FrameSettings, 1, 0, "\x00\x04\x00\x00\x00\x09"), FrameSizeError},
		"half a setting":              {raw(http2.FrameSettings, 0, 0, "\x00\x04\x00"), FrameSizeError},
		"push promise":                {raw(http2.FramePushPromise, 4, 1, "\x00\x00\x00\x02"), ProtocolError},
		"ping on a stream":            {raw(http2.FramePing, 0, 1, "12345678"), ProtocolError},
		"long ping":                   {raw(http2.FramePing, 0, 0, "123456789"), FrameSizeError},
		"goaway on a stream":          {raw(http2.FrameGoAway, 0, 1, "12345678"), ProtocolError},
		"short goaway":                {raw(http2.FrameGoAway, 0, 0, "1234567"), FrameSizeError},
		"window update by 0":          {raw(http2.FrameWindowUpdate, 0, 0, "\x00\x00\x00\x00"), ProtocolError},
		"long window update":          {raw(http2.FrameWindowUpdate, 0, 1, "\x00\x00\x00\x00\x00"), FrameSizeError},
		"continuation alone":          {raw(http2.FrameContinuation, 4, 1, "b"), ProtocolError},
		"continuation after the end":  {all(raw(http2.FrameHeaders, 4, 1, "b"), raw(http2.FrameContinuation, 4, 1, "b")), ProtocolError},
		"continuation of another":     {all(head, raw(http2.FrameContinuation, 4, 3, "b")), ProtocolError},
		"data within a block":         {all(head, raw(http2.FrameData, 0, 1, "d")), ProtocolError},
		"unknown within a block":      {all(head, raw(0x42, 0, 1, "d")), ProtocolError},
		"headers within a block":      {all(head, raw(http2.FrameHeaders, 4, 1, "b")), ProtocolError},
		"block without end":           {all(endless...), EnhanceYourCalm},
		"priority update on a stream": {raw(0x10, 0, 1, "\x00\x00\x00\x01"), ProtocolError},
		"short priority update":       {raw(0x10, 0, 0, "\x00\x00\x00"), FrameSizeError},
		"large block": {all(head, raw(http2.FrameContinuation, 0, 1, strings.Repeat("b", 16384)),
			raw(http2.FrameContinuation, 0, 1, strings.Repeat("b", 16384)), raw(http2.FrameContinuation, 4, 1, strings.Repeat("b", 16384))), EnhanceYourCalm},
	}
	for name, tc := range tests {
		data := byFramer(t, tc.write)
		for way, src := range map[string]io.Reader{"at once": bytes.NewReader(data), "bytewise": iotest.OneByteReader(bytes.NewReader(data))} {
			_, err := readAll(src, ReaderLimits{Block: 40_000})
			if got, ok := errors.AsType[*ConnError](err); !ok || got.Code != tc.want || got.Reason == "" {
				t.Errorf("%s, %s: got %v, want %v", name, way, err, tc.want)
			}
		}
	}
}

func TestReaderEnds(t *testing.T) {
	whole := byFramer(t, func(f *http2.Framer) error {
		return errors.Join(f.WriteData(1, true, []byte("hello")), f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("b")}),
			f.WriteContinuation(1, true, []byte("b")))
	})
	const data, block = FrameHeader + 5, FrameHeader + 1 // lengths
	for n := range whole {
		_, err := readAll(bytes.NewReader(whole[:n]), ReaderLimits{})
		between := n == 0 || n == data
		if between && err != nil || !between && err != io.ErrUnexpectedEOF {
			t.Errorf("after %d bytes: %v", n, err)
		}
	}
	if frames, err := readAll(bytes.NewReader(whole), ReaderLimits{}); err != nil || len(frames) != 2 || len(whole) != data+2*block {
		t.Errorf("whole: %v, %v", frames, err)
	}
}

// A DATA frame that comes slowly is handed out as it comes.
func TestReaderPieces(t *testing.T) {
	raw := byFramer(t, func(f *http2.Framer) error { return f.WriteDataPadded(1, true, []byte("hello"), make([]byte, 2)) })
	var r Reader
	r.Init(nil, ReaderLimits{})
	var got []string
	for _, b := range raw {
		r.Space()[0] = b
		r.Advance(1)
		for {
			f, ok, err := r.Buffered()
			if err != nil {
				t.Fatal(err)
			}
			if !ok {
				break
			}
			got = append(got, fmt.Sprintf("%s %d %v", f.Payload, f.Size, f.EndStream()))
		}
		if !r.Within() && len(got) < 6 {
			t.Errorf("after %q the reader is not within a frame", got)
		}
	}
	want := []string{" 1 false", "h 1 false", "e 1 false", "l 1 false", "l 1 false", "o 1 false", " 2 true"}
	if fmt.Sprint(got) != fmt.Sprint(want) || r.Within() || r.Partial() {
		t.Errorf("got %q, want %q; within %v", got, want, r.Within())
	}
}

func TestReaderPreface(t *testing.T) {
	for text, want := range map[string]bool{Preface: true, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\r": false, "GET / HTTP/1.1\r\n": false, "P": true, "": true} {
		var r Reader
		r.Init(nil, ReaderLimits{})
		r.Advance(copy(r.Space(), text))
		ok, err := r.Preface()
		if (err == nil) != want || ok != (text == Preface) {
			t.Errorf("%q: got %v, %v", text, ok, err)
		}
	}
}

func TestReaderReleasesMemory(t *testing.T) {
	var r Reader
	r.Init(nil, ReaderLimits{})
	raw := byFramer(t, func(f *http2.Framer) error { return f.WriteData(1, false, []byte("hello")) })
	r.Advance(copy(r.Space(), raw[:7]))
	if r.Release(); r.memory == nil {
		t.Fatal("what is unread was released")
	}
	if _, ok, err := r.Buffered(); ok || err != nil || !r.Partial() {
		t.Fatalf("half a header is a frame: %v", err)
	}
	r.Advance(copy(r.Space(), raw[7:]))
	if f, ok, err := r.Buffered(); !ok || err != nil || string(f.Payload) != "hello" {
		t.Fatalf("got %+v, %v, %v", f, ok, err)
	}
	if r.Release(); r.memory != nil || r.buf != nil {
		t.Error("an idle reader holds memory")
	}
}

// A connection that brings much gets a larger buffer, and loses it again.
func TestReaderBulk(t *testing.T) {
	var r Reader
	r.Init(nil, ReaderLimits{})
	raw := bytes.Repeat(byFramer(t, func(f *http2.Framer) error { return f.WriteData(1, false, make([]byte, 16384)) }), 40)
	sizes := map[int]bool{}
	for len(raw) > 0 {
		n := copy(r.Space(), raw)
		raw = raw[n:]
		r.Advance(n)
		sizes[len(r.buf)] = true
		for {
			if _, ok, err := r.Buffered(); err != nil {
				t.Fatal(err)
			} else if !ok {
				break
			}
		}
	}
	if !sizes[readSize] || !sizes[bulkSize] {
		t.Errorf("buffers of %v, want %d and then %d", sizes, readSize, bulkSize)
	}
	r.Advance(0)
	if r.Release(); len(r.Space()) != readSize {
		t.Errorf("then %d, want %d", len(r.buf), readSize)
	}
}

func TestReaderAllocations(t *testing.T) {
	raw := byFramer(t, func(f *http2.Framer) error {
		return errors.Join(
			f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("block")}), f.WriteContinuation(1, true, []byte("block")),
			f.WriteData(1, true, make([]byte, 16384)), f.WriteWindowUpdate(0, 7), f.WritePing(false, [8]byte{}))
	})
	var r Reader
	r.Init(nil, ReaderLimits{})
	if n := testing.AllocsPerRun(200, func() {
		for rest := raw; len(rest) > 0; {
			n := copy(r.Space(), rest)
			rest = rest[n:]
			r.Advance(n)
			for {
				if _, ok, _ := r.Buffered(); !ok {
					break
				}
			}
		}
		r.Release()
	}); n > 0.1 && !raceDetector {
		t.Errorf("%v allocations for 4 frames, want 0", n)
	}
}

// FuzzFrames: whatever comes, and in whatever pieces, the same frames come out; nothing panics or hangs.
func FuzzFrames(f *testing.F) {
	for _, write := range []func(f *http2.Framer) error{
		func(f *http2.Framer) error { return f.WriteDataPadded(1, true, []byte("hello"), make([]byte, 20)) },
		func(f *http2.Framer) error {
			return errors.Join(f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: []byte("block"), PadLength: 3, Priority: http2.PriorityParam{StreamDep: 3}}),
				f.WriteContinuation(1, false, nil), f.WriteContinuation(1, true, []byte("more")), f.WriteRSTStream(1, 8))
		},
		func(f *http2.Framer) error {
			return errors.Join(f.WriteSettings(http2.Setting{ID: 4, Val: 9}), f.WritePing(false, [8]byte{}), f.WriteGoAway(1, 2, nil),
				f.WriteWindowUpdate(0, 1), f.WritePriority(1, http2.PriorityParam{}), f.WriteRawFrame(0x10, 0, 0, []byte("\x00\x00\x00\x01u=1")))
		},
		func(f *http2.Framer) error { return f.WriteRawFrame(http2.FrameHeaders, 0xff, 1, []byte("\x05")) },
	} {
		f.Add(byFramer(f, write), uint8(3))
	}
	f.Fuzz(func(t *testing.T, raw []byte, step uint8) {
		limits := ReaderLimits{Block: 1 << 10, Continuations: 4}
		want, wantErr := readAll(bytes.NewReader(raw), limits)
		got, gotErr := readAll(&stepReader{raw, int(step%32) + 1}, limits)
		if fmt.Sprint(want, wantErr) != fmt.Sprint(got, gotErr) {
			t.Fatalf("at once:   %v %v\nin steps: %v %v", want, wantErr, got, gotErr)
		}
	})
}

// stepReader reads a few bytes at a time.
type stepReader struct {
	rest []byte
	step int
}

func (s *stepReader) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), s.step)], s.rest)
	s.rest = s.rest[n:]
	return n, nil
}
