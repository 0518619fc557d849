package h3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"

	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

func frame(kind uint64, payload string) string {
	return string(AppendVarint(AppendVarint(nil, kind), uint64(len(payload)))) + payload
}

func headers(pairs ...string) string { return frame(typeHeaders, string(plain(pairs...))) }

func data(payload string) string { return frame(typeData, payload) }

// message is what a Reader made of a stream.
type message struct {
	Target, Body string
	Trailers     exchange.Fields
	Err          string // the code, the fault's kind or the source's error
}

func errorName(err error) string {
	var conn *ConnError
	var stream *StreamError
	var fault *exchange.Fault
	switch {
	case err == nil:
		return ""
	case errors.As(err, &conn):
		return "connection: " + conn.Code.String()
	case errors.As(err, &fault):
		return "fault: " + string(fault.Kind)
	case errors.As(err, &stream):
		return "stream: " + stream.Code.String()
	}
	return err.Error()
}

// read reads a whole stream, by reads of the given size.
func read(src io.Reader, limits section.Limits, size int) (m message) {
	var r Reader
	r.Init(src, limits)
	defer r.Release()
	var head exchange.Head
	if err := r.ReadRequest(&head); err != nil {
		return message{Err: errorName(err)}
	}
	m.Target = strings.Clone(head.Target)
	var body []byte
	p := make([]byte, size)
	for {
		ready, whole := r.Ready()
		n, err := r.Read(p)
		body = append(body, p[:n]...)
		switch {
		case n < min(ready, size):
			m.Err = "less was read than was ready"
			return m
		case whole && err == nil && n == ready && n < size:
			m.Err = "the end was ready and did not come"
			return m
		case whole && err != nil && err != io.EOF:
			m.Err = "what was ready whole failed: " + err.Error()
			return m
		}
		if err != nil {
			m.Body = string(body)
			for _, f := range r.Trailers() {
				m.Trailers.Add(strings.Clone(f.Name), strings.Clone(f.Value))
			}
			if err != io.EOF {
				m.Err = errorName(err)
			}
			return m
		}
	}
}

var errReset = errors.New("reset")

func TestReader(t *testing.T) {
	long := strings.Repeat("0123456789", 3000)
	grease := frame(0x21+0x1f*7, "grease")
	head := headers(get()...)
	sized := func(length string) string { return headers(get("content-length", length)...) }
	small := section.Limits{Bytes: 8 << 10, Fields: 50}
	for name, tc := range map[string]struct {
		stream string
		reset  bool
		want   message
	}{
		"no body":                       {head, false, message{Target: "/x?y=1"}},
		"a body":                        {head + data("hello"), false, message{Target: "/x?y=1", Body: "hello"}},
		"several frames":                {head + data("hel") + data("") + data("lo"), false, message{Target: "/x?y=1", Body: "hello"}},
		"a long body":                   {head + data(long) + data(long), false, message{Target: "/x?y=1", Body: long + long}},
		"many small frames":             {head + strings.Repeat(data("ab"), 5000), false, message{Target: "/x?y=1", Body: strings.Repeat("ab", 5000)}},
		"trailers":                      {head + data("x") + headers("a", "1", "b", "2"), false, message{Target: "/x?y=1", Body: "x", Trailers: exchange.Fields{{Name: "a", Value: "1"}, {Name: "b", Value: "2"}}}},
		"trailers without a body":       {head + headers("a", "1"), false, message{Target: "/x?y=1", Trailers: exchange.Fields{{Name: "a", Value: "1"}}}},
		"long trailers":                 {head + data(long) + headers("a", long[:7000]), false, message{Target: "/x?y=1", Body: long, Trailers: exchange.Fields{{Name: "a", Value: long[:7000]}}}},
		"grease everywhere":             {grease + head + grease + data("x") + grease + headers("a", "1") + grease, false, message{Target: "/x?y=1", Body: "x", Trailers: exchange.Fields{{Name: "a", Value: "1"}}}},
		"content-length":                {sized("5") + data("he") + data("llo"), false, message{Target: "/x?y=1", Body: "hello"}},
		"content-length and trailers":   {sized("1") + data("x") + headers("a", "1"), false, message{Target: "/x?y=1", Body: "x", Trailers: exchange.Fields{{Name: "a", Value: "1"}}}},
		"content-length 0":              {sized("0"), false, message{Target: "/x?y=1"}},
		"long head":                     {headers(get("a", long[:7000])...) + data(long), false, message{Target: "/x?y=1", Body: long}},
		"lone end after content-length": {sized("5"), false, message{Target: "/x?y=1", Err: "fault: bad_request"}},
		"body too short":                {sized("5") + data("hell"), false, message{Target: "/x?y=1", Body: "hell", Err: "fault: bad_request"}},
		"body too short, trailers":      {sized("5") + data("hell") + headers("a", "1"), false, message{Target: "/x?y=1", Body: "hell", Trailers: exchange.Fields{{Name: "a", Value: "1"}}, Err: "fault: bad_request"}},
		"body too long":                 {sized("5") + data("hello!"), false, message{Target: "/x?y=1", Err: "fault: bad_request"}},
		"body too long, second frame":   {sized("5") + data("hello") + data("!"), false, message{Target: "/x?y=1", Body: "hello", Err: "fault: bad_request"}},
		"nothing":                       {"", false, message{Err: "stream: H3_REQUEST_INCOMPLETE"}},
		"only grease":                   {grease, false, message{Err: "stream: H3_REQUEST_INCOMPLETE"}},
		"half a frame's beginning":      {head[:1], false, message{Err: "connection: H3_FRAME_ERROR"}},
		"half a head":                   {head[:20], false, message{Err: "connection: H3_FRAME_ERROR"}},
		"half a DATA frame":             {head + data("hello")[:4], false, message{Target: "/x?y=1", Body: "he", Err: "connection: H3_FRAME_ERROR"}},
		"half of long DATA":             {head + data(long)[:20_003], false, message{Target: "/x?y=1", Body: long[:20_000], Err: "connection: H3_FRAME_ERROR"}},
		"half of trailers":              {head + headers("a", "1")[:4], false, message{Target: "/x?y=1", Err: "connection: H3_FRAME_ERROR"}},
		"half of grease":                {head + grease[:5], false, message{Target: "/x?y=1", Err: "connection: H3_FRAME_ERROR"}},
		"reset before the head":         {head[:20], true, message{Err: "reset"}},
		"reset within the body":         {head + data("hello")[:4], true, message{Target: "/x?y=1", Body: "he", Err: "reset"}},
		"reset after the body":          {head + data("hello"), true, message{Target: "/x?y=1", Body: "hello", Err: "reset"}},
		"DATA first":                    {data("x") + head, false, message{Err: "connection: H3_FRAME_UNEXPECTED"}},
		"DATA after trailers":           {head + headers("a", "1") + data("x"), false, message{Target: "/x?y=1", Trailers: exchange.Fields{{Name: "a", Value: "1"}}, Err: "connection: H3_FRAME_UNEXPECTED"}},
		"empty DATA after trailers":     {head + headers("a", "1") + data(""), false, message{Target: "/x?y=1", Trailers: exchange.Fields{{Name: "a", Value: "1"}}, Err: "connection: H3_FRAME_UNEXPECTED"}},
		"two trailers":                  {head + headers("a", "1") + headers("a", "1"), false, message{Target: "/x?y=1", Trailers: exchange.Fields{{Name: "a", Value: "1"}}, Err: "connection: H3_FRAME_UNEXPECTED"}},
		"SETTINGS":                      {frame(typeSettings, ""), false, message{Err: "connection: H3_FRAME_UNEXPECTED"}},
		"GOAWAY":                        {head + frame(typeGoAway, "\x00"), false, message{Target: "/x?y=1", Err: "connection: H3_FRAME_UNEXPECTED"}},
		"PUSH_PROMISE":                  {head + frame(typePushPromise, "\x00"), false, message{Target: "/x?y=1", Err: "connection: H3_FRAME_UNEXPECTED"}},
		"MAX_PUSH_ID":                   {frame(typeMaxPushID, "\x00") + head, false, message{Err: "connection: H3_FRAME_UNEXPECTED"}},
		"CANCEL_PUSH":                   {frame(typeCancelPush, "\x00") + head, false, message{Err: "connection: H3_FRAME_UNEXPECTED"}},
		"PRIORITY_UPDATE":               {frame(typePriorityUpdate, "\x00u=1") + head, false, message{Err: "connection: H3_FRAME_UNEXPECTED"}},
		"HTTP/2's PING":                 {frame(0x06, "12345678") + head, false, message{Err: "connection: H3_FRAME_UNEXPECTED"}},
		"HTTP/2's PRIORITY":             {head + frame(0x02, "12345"), false, message{Target: "/x?y=1", Err: "connection: H3_FRAME_UNEXPECTED"}},
		"block over the limit":          {headers(get("a", long)...), false, message{Err: "fault: fields_too_large"}},
		"fields over the limit":         {headers(get(strings.Split(strings.Repeat("a,1,", 50)+"a,1", ",")...)...), false, message{Err: "fault: fields_too_large"}},
		"trailers over the limit":       {head + headers("a", long), false, message{Target: "/x?y=1", Err: "fault: fields_too_large"}},
		"malformed trailers":            {head + headers(":path", "/"), false, message{Target: "/x?y=1", Err: "fault: bad_request"}},
		"undecodable trailers":          {head + frame(typeHeaders, "\x00\x00\x80"), false, message{Target: "/x?y=1", Err: "connection: QPACK_DECOMPRESSION_FAILED"}},
		"much grease":                   {strings.Repeat(grease, mostIdleFrames+1) + head, false, message{Err: "connection: H3_EXCESSIVE_LOAD"}},
		"much empty DATA":               {head + strings.Repeat(data(""), mostIdleFrames+1), false, message{Target: "/x?y=1", Err: "connection: H3_EXCESSIVE_LOAD"}},
		"long grease":                   {frame(0x21, strings.Repeat("g", mostIdleBytes+1)) + head, false, message{Err: "connection: H3_EXCESSIVE_LOAD"}},
		"grease that is worth it":       {head + strings.Repeat(grease+data(""+"x"), 300), false, message{Target: "/x?y=1", Body: strings.Repeat("x", 300)}},
		"lengths of eight bytes":        {"\xc0\x00\x00\x00\x00\x00\x00\x01\xc0\x00\x00\x00\x00\x00\x00" + head[1:2] + head[2:] + data("x"), false, message{Target: "/x?y=1", Body: "x"}},
	} {
		t.Run(name, func(t *testing.T) {
			for how, wrap := range map[string]func(io.Reader) io.Reader{
				"at once":      func(r io.Reader) io.Reader { return r },
				"with the end": iotest.DataErrReader,
				"in halves":    iotest.HalfReader,
				"byte by byte": iotest.OneByteReader,
			} {
				for _, size := range []int{1 << 16, 4000, 7} {
					var src io.Reader = strings.NewReader(tc.stream)
					if tc.reset {
						src = io.MultiReader(src, iotest.ErrReader(errReset))
					}
					got := read(wrap(src), small, size)
					if tc.want.Err != "" && tc.want.Target != "" && strings.HasPrefix(tc.want.Body, got.Body) {
						got.Body, got.Trailers = tc.want.Body, tc.want.Trailers // what came before an error is no promise
						if name == "lone end after content-length" {
							got.Target = tc.want.Target // it shows with the head, or later
						}
					}
					if diff := cmp.Diff(tc.want, got); diff != "" {
						t.Errorf("%s, reads of %d: %.2000s", how, size, diff)
					}
				}
			}
		})
	}
}

func TestReaderReady(t *testing.T) {
	head := headers(get()...)
	sized := headers(get("content-length", "5")...)
	for name, tc := range map[string]struct {
		stream string
		ended  bool
		n      int
		whole  bool
	}{
		"no body":              {head, true, 0, true},
		"nothing known":        {head, false, 0, false},
		"a body":               {head + data("hello"), true, 5, true},
		"two frames":           {head + data("he") + data("llo"), true, 5, true},
		"an empty frame":       {head + data("he") + data("") + data("llo"), true, 2, false},
		"not ended":            {head + data("hello"), false, 5, false},
		"half a frame":         {head + data("hello")[:4], false, 2, false},
		"half a beginning":     {head + data("hello") + "\x00", false, 5, false},
		"trailers":             {head + data("hello") + headers("a", "1"), true, 5, false},
		"as long as it says":   {sized + data("hello"), true, 5, true},
		"shorter than it says": {sized + data("hell"), true, 4, false},
		"longer than it says":  {sized + data("hello!"), true, 0, false},
	} {
		t.Run(name, func(t *testing.T) {
			var src io.Reader = strings.NewReader(tc.stream)
			if tc.ended {
				src = iotest.DataErrReader(src)
			}
			var r Reader
			r.Init(src, wide)
			defer r.Release()
			if err := r.ReadRequest(new(exchange.Head)); err != nil {
				t.Fatal(err)
			}
			if n, whole := r.Ready(); n != tc.n || whole != tc.whole {
				t.Errorf("got %d, %v, want %d, %v", n, whole, tc.n, tc.whole)
			}
			if tc.n == 0 && !tc.ended {
				if err := r.Wait(); err != io.EOF {
					t.Errorf("waiting for the end: %v", err)
				}
				if n, whole := r.Ready(); n != 0 || !whole {
					t.Errorf("after waiting: %d, %v", n, whole)
				}
			}
		})
	}
}

func TestReaderTimeout(t *testing.T) {
	var r Reader
	r.Init(io.MultiReader(strings.NewReader(headers(get()...)), iotest.TimeoutReader(strings.NewReader(data("hello")))), wide)
	defer r.Release()
	if err := r.ReadRequest(new(exchange.Head)); err != nil {
		t.Fatal(err)
	}
	if n, whole := r.Ready(); n != 0 || whole {
		t.Fatal(n, whole)
	}
	if err := r.Wait(); err != nil {
		t.Fatal(err)
	}
	if n, _ := r.Ready(); n != 5 {
		t.Error(n)
	}
}

func TestTunnelReader(t *testing.T) {
	var r Reader
	r.Init(strings.NewReader(headers(get()...)+data("hello")+headers("a", "1")), wide)
	defer r.Release()
	if err := r.ReadRequest(new(exchange.Head)); err != nil {
		t.Fatal(err)
	}
	r.Tunnel()
	got, err := io.ReadAll(&r)
	if string(got) != "hello" || errorName(err) != "connection: H3_FRAME_UNEXPECTED" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestReaderAllocatesNothing(t *testing.T) {
	stream := []byte(frame(typeHeaders, string(block(t, get("user-agent", "probe/1.0", "content-length", "5")...))) + data("hello"))
	var r Reader
	head := exchange.Head{Fields: make(exchange.Fields, 0, 16)}
	src := new(bytes.Reader)
	p := make([]byte, 64)
	if got := testing.AllocsPerRun(100, func() {
		src.Reset(stream)
		r.Init(src, wide)
		if err := r.ReadRequest(&head); err != nil {
			t.Fatal(err)
		}
		for {
			if _, err := r.Read(p); err == io.EOF {
				break
			} else if err != nil {
				t.Fatal(err)
			}
		}
		r.Release()
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// FuzzReader holds what a stream means against how it arrives.
func FuzzReader(f *testing.F) {
	head := headers(get()...)
	f.Add([]byte(head+data("hello")), 3)
	f.Add([]byte(frame(0x21, "grease")+head+data("")+data("x")+headers("a", "1")), 1)
	f.Add([]byte(headers(get("content-length", "5")...)+data("he")+data("llo")), 100)
	f.Add([]byte(head+data(strings.Repeat("long", 3000))), 4096)
	f.Add([]byte(head+frame(typeGoAway, "\x00")), 9)
	f.Fuzz(func(t *testing.T, stream []byte, size int) {
		size = min(max(size, 1), 1<<16)
		limits := section.Limits{Bytes: 8 << 10, Fields: 50}
		whole := read(bytes.NewReader(stream), limits, 1<<16)
		pieces := read(iotest.OneByteReader(bytes.NewReader(stream)), limits, size)
		ended := read(iotest.DataErrReader(bytes.NewReader(stream)), limits, size)
		for _, other := range []message{pieces, ended} {
			// An error may be found before or after what stands before it was handed out.
			if whole.Err != "" && (strings.HasPrefix(whole.Body, other.Body) || strings.HasPrefix(other.Body, whole.Body)) {
				other.Body, other.Trailers = whole.Body, whole.Trailers
			}
			if whole.Err != "" && whole.Target == "" || other.Target == "" {
				other.Target = whole.Target // a content-length without a body shows at once, or later
			}
			if diff := cmp.Diff(whole, other); diff != "" {
				t.Fatal(diff)
			}
		}
	})
}
