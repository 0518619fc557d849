package h3

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/quic-go/qpack"

	"gatehouse.dev/gatehouse/gateway/codec/section"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

var wide = section.Limits{Bytes: 1 << 20, Fields: 1000}

// block returns a field section as quic-go's encoder writes it, with the Huffman code and the static table.
func block(t testing.TB, pairs ...string) []byte {
	t.Helper()
	var b bytes.Buffer
	enc := qpack.NewEncoder(&b)
	for i := 0; i < len(pairs); i += 2 {
		if err := enc.WriteField(qpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

// plain returns a field section of literals without the Huffman code, whatever the fields are.
func plain(pairs ...string) []byte {
	b := []byte{0, 0}
	for i := 0; i < len(pairs); i += 2 {
		b = append(appendInteger(b, 0x20, 3, uint64(len(pairs[i]))), pairs[i]...)
		b = append(appendInteger(b, 0, 7, uint64(len(pairs[i+1]))), pairs[i+1]...)
	}
	return b
}

func get(more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "https", ":authority", "a.test", ":path", "/x?y=1"}, more...)
}

// decodeAll reads lines without the rules for messages.
func decodeAll(b []byte) (list []qpack.HeaderField, err error) {
	var d lineDecoder
	var f section.Known
	var arena section.Arena
	for d.begin(b, &arena); d.more(); {
		d.next(&f)
		if d.bad == "" {
			list = append(list, qpack.HeaderField{Name: strings.Clone(f.Name), Value: strings.Clone(f.Value)})
		}
	}
	return list, d.err()
}

func theirs(b []byte) (list []qpack.HeaderField, err error) {
	next := qpack.NewDecoder().Decode(b)
	for {
		f, err := next()
		if err == io.EOF {
			return list, nil
		}
		if err != nil {
			return list, err
		}
		list = append(list, f)
	}
}

func TestStaticTable(t *testing.T) {
	for i, want := range static {
		got, err := theirs(appendInteger([]byte{0, 0}, 0xc0, 6, uint64(i)))
		if err != nil || len(got) != 1 || got[0].Name != want.Name || got[0].Value != want.Value {
			t.Errorf("entry %d is %q: %q, want %v, %v", i, want.Name, want.Value, got, err)
		}
		if want.ID != exchange.IDOf(want.Name) {
			t.Errorf("%s has the number of another name", want.Name)
		}
		found := false
		for _, place := range places(strings.ToUpper(want.Name)) {
			found = found || int(place) == i
		}
		if !found {
			t.Errorf("entry %d, %s, is not found by its name", i, want.Name)
		}
	}
	if _, err := theirs(appendInteger([]byte{0, 0}, 0xc0, 6, uint64(len(static)))); err == nil {
		t.Error("the table has more entries")
	}
	for _, name := range []string{"", "x", "agf", "x-frame-optionz", strings.Repeat("a", 100)} {
		if places(name) != nil {
			t.Errorf("%q is found", name)
		}
	}
}

func TestRequestSection(t *testing.T) {
	for name, encode := range map[string]func(...string) []byte{
		"compressed": func(pairs ...string) []byte { return block(t, pairs...) },
		"plain":      plain,
	} {
		var d Decoder
		var head exchange.Head
		length, err := d.Request(encode(get("content-length", "12", "user-agent", "probe/1", "x-odd", "{\\}|~", "cookie", "a=1", "host", "A.test")...), &head, wide)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		want := exchange.Head{Method: "GET", Scheme: "https", Authority: "a.test", Target: "/x?y=1"}
		want.Fields.Add("content-length", "12")
		want.Fields.Add("user-agent", "probe/1")
		want.Fields.Add("x-odd", "{\\}|~")
		want.Fields.Add("cookie", "a=1")
		if diff := cmp.Diff(want, head, cmp.AllowUnexported(exchange.Head{})); diff != "" || length != 12 {
			t.Errorf("%s: length %d, %s", name, length, diff)
		}
		d.Reset()
	}
}

func TestSectionErrors(t *testing.T) {
	many := func(line byte, n int) []byte { return append(plain(get()...), bytes.Repeat([]byte{line}, n)...) }
	for name, tc := range map[string]struct {
		block []byte
		want  string // of the connection's or the message's error; "too large" for the limit
	}{
		"nothing":                     {nil, "QPACK_DECOMPRESSION_FAILED"},
		"no base":                     {[]byte{0}, "QPACK_DECOMPRESSION_FAILED"},
		"requires the dynamic table":  {[]byte{1, 0}, "QPACK_DECOMPRESSION_FAILED"},
		"negative base":               {[]byte{0, 0x80}, "QPACK_DECOMPRESSION_FAILED"},
		"any base":                    {append([]byte{0, 5}, plain(get()...)[2:]...), ""},
		"dynamic line":                {append(plain(get()...), 0x80), "QPACK_DECOMPRESSION_FAILED"},
		"dynamic name":                {append(plain(get()...), 0x40, 1, 'a'), "QPACK_DECOMPRESSION_FAILED"},
		"post-base line":              {append(plain(get()...), 0x10), "QPACK_DECOMPRESSION_FAILED"},
		"post-base name":              {append(plain(get()...), 0x00, 1, 'a'), "QPACK_DECOMPRESSION_FAILED"},
		"no such entry":               {append(plain(get()...), 0xff, 99-63), "QPACK_DECOMPRESSION_FAILED"},
		"no such name":                {append(plain(get()...), 0x5f, 99-15, 0), "QPACK_DECOMPRESSION_FAILED"},
		"integer without end":         {append(plain(get()...), 0xff, 0xff), "QPACK_DECOMPRESSION_FAILED"},
		"integer too large":           {append(plain(get()...), 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1), "QPACK_DECOMPRESSION_FAILED"},
		"string too long":             {append(plain(get()...), 0x21, 'a', 5, 'b'), "QPACK_DECOMPRESSION_FAILED"},
		"no value":                    {append(plain(get()...), 0x21, 'a'), "QPACK_DECOMPRESSION_FAILED"},
		"eight ones of padding":       {append(plain(get()...), 0x21, 'a', 0x82, 0x1f, 0xff), "QPACK_DECOMPRESSION_FAILED"},
		"zeros of padding":            {append(plain(get()...), 0x21, 'a', 0x81, 0x18), "QPACK_DECOMPRESSION_FAILED"},
		"end of string in a string":   {append(plain(get()...), 0x21, 'a', 0x84, 0xff, 0xff, 0xff, 0xff), "QPACK_DECOMPRESSION_FAILED"},
		"malformed and undecodable":   {append(plain(get("A", "1")...), 0x80), "QPACK_DECOMPRESSION_FAILED"},
		"upper case":                  {plain(get("A", "1")...), "H3_MESSAGE_ERROR"},
		"line feed":                   {plain(get("a", "1\n2")...), "H3_MESSAGE_ERROR"},
		"line feed, known name":       {append(plain(get()...), 0x50, 1, '\n'), "H3_MESSAGE_ERROR"},
		"space in front":              {plain(get("a", " 1")...), "H3_MESSAGE_ERROR"},
		"connection":                  {plain(get("connection", "close")...), "H3_MESSAGE_ERROR"},
		"two methods":                 {plain(get(":method", "GET")...), "H3_MESSAGE_ERROR"},
		"late pseudo-field":           {append(plain(get("a", "1")...), 0xc0|1), "H3_MESSAGE_ERROR"},
		"status":                      {append(plain(get()...), 0xc0|25), "H3_MESSAGE_ERROR"},
		"fields bomb":                 {many(0xc0|17, 2000), "H3_MESSAGE_ERROR"}, // :method again: malformed before it is large
		"fields bomb of regular ones": {many(0xc0|31, 2000), "too large"},
		"bytes bomb":                  {append(plain(get()...), bytes.Repeat([]byte{0xff, 85 - 63}, 900)...), "too large"},
	} {
		t.Run(name, func(t *testing.T) {
			var d Decoder
			var head exchange.Head
			_, err := d.Request(tc.block, &head, section.Limits{Bytes: 64 << 10, Fields: 1000})
			err = refusal(err)
			var conn *ConnError
			var stream *StreamError
			fault, _ := errors.AsType[*exchange.Fault](err)
			got := ""
			switch {
			case errors.As(err, &conn):
				got = conn.Code.String()
			case errors.As(err, &stream):
				if fault == nil || fault.Kind != exchange.BadRequest {
					t.Errorf("the client is told %v", fault)
				}
				got = stream.Code.String()
			case errors.Is(err, section.ErrTooLarge):
				if fault == nil || fault.Kind != exchange.FieldsTooLarge {
					t.Errorf("the client is told %v", fault)
				}
				got = "too large"
			case err != nil:
				t.Fatal(err)
			}
			if got != tc.want {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestTrailersSection(t *testing.T) {
	var d Decoder
	var got exchange.Fields
	if err := d.Trailers(block(t, "grpc-status", "0", "grpc-message", "done"), &got, wide); err != nil {
		t.Fatal(err)
	}
	want := exchange.Fields{{Name: "grpc-status", Value: "0"}, {Name: "grpc-message", Value: "done"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	for name, bad := range map[string][]byte{"pseudo-field": plain(":path", "/"), "upper case": plain("A", "1")} {
		if err := d.Trailers(bad, &got, wide); !errors.As(err, new(section.Malformed)) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAppendResponse(t *testing.T) {
	long := strings.Repeat("v", 20_000)
	fields := exchange.Fields{}
	for _, f := range [][2]string{{"Content-Type", "text/css"}, {"content-type", "text/odd"}, {"X-Mixed-Case", "Value"}, {"Content-Length", "7"},
		{"Set-Cookie", ""}, {"etag", `"1"`}, {"vary", "origin"}, {"empty", ""}} {
		fields.Add(f[0], f[1])
	}
	for name, tc := range map[string]struct {
		status int
		fields exchange.Fields
		length int64
		date   string
		want   []qpack.HeaderField
	}{
		"plain": {200, nil, -1, "", []qpack.HeaderField{{Name: ":status", Value: "200"}}},
		"all": {418, fields, 12345, "Thu, 01 Jan 1970 00:00:00 GMT", []qpack.HeaderField{
			{Name: ":status", Value: "418"}, {Name: "content-type", Value: "text/css"}, {Name: "content-type", Value: "text/odd"},
			{Name: "x-mixed-case", Value: "Value"}, {Name: "set-cookie"}, {Name: "etag", Value: `"1"`}, {Name: "vary", Value: "origin"},
			{Name: "empty"}, {Name: "content-length", Value: "12345"}, {Name: "date", Value: "Thu, 01 Jan 1970 00:00:00 GMT"}}},
		"a date of its own, no bytes": {204, exchange.Fields{{Name: "Date", Value: "then", ID: exchange.Date}}, 0, "now",
			[]qpack.HeaderField{{Name: ":status", Value: "204"}, {Name: "date", Value: "then"}, {Name: "content-length", Value: "0"}}},
		"long": {200, exchange.Fields{{Name: "a", Value: long}}, -1, "",
			[]qpack.HeaderField{{Name: ":status", Value: "200"}, {Name: "a", Value: long}}},
	} {
		t.Run(name, func(t *testing.T) {
			frame := AppendResponse([]byte("before"), tc.status, tc.fields, tc.length, tc.date)
			if !bytes.HasPrefix(frame, []byte("before")) {
				t.Fatalf("what was there is gone: %q", frame[:10])
			}
			checkHeaders(t, frame[6:], tc.want)
		})
	}
	checkHeaders(t, AppendTrailers(nil, exchange.Fields{{Name: "Grpc-Status", Value: "0"}}), []qpack.HeaderField{{Name: "grpc-status", Value: "0"}})
}

func checkHeaders(t *testing.T, frame []byte, want []qpack.HeaderField) {
	t.Helper()
	size, n := Varint(frame[1:])
	if frame[0] != typeHeaders || int(size) != len(frame)-1-n {
		t.Fatalf("the frame has the type %d and tells a length of %d, not %d", frame[0], size, len(frame)-1-n)
	}
	for who, decode := range map[string]func([]byte) ([]qpack.HeaderField, error){"qpack": theirs, "ours": decodeAll} {
		got, err := decode(frame[1+n:])
		if diff := cmp.Diff(want, got); err != nil || diff != "" {
			t.Errorf("%s: %v %s", who, err, diff)
		}
	}
}

func TestSectionsAllocateNothing(t *testing.T) {
	request := block(t, get("user-agent", "probe/1.0 (test)", "accept", "*/*", "accept-encoding", "gzip", "x-request-id", "0123456789abcdef")...)
	var d Decoder
	head := exchange.Head{Fields: make(exchange.Fields, 0, 16)}
	fields := exchange.Fields{}
	fields.Add("content-type", "text/plain")
	fields.Add("X-Served-By", "one")
	out := make([]byte, 0, 512)
	if got := testing.AllocsPerRun(100, func() {
		if _, err := d.Request(request, &head, wide); err != nil {
			t.Fatal(err)
		}
		d.Reset()
		out = AppendResponse(out[:0], 404, fields, 130, "Thu, 01 Jan 1970 00:00:00 GMT")
	}); got != 0 {
		t.Errorf("%v allocations", got)
	}
}

// FuzzSection holds the decoder against quic-go's.
func FuzzSection(f *testing.F) {
	f.Add(block(f, get("user-agent", "probe/1", "x", "y")...))
	f.Add(plain(get("a", "b")...))
	f.Add([]byte{0, 0, 0xd1, 0xff, 0x16, 0x5f, 0x1d, 0x82, 0x1f, 0xff})
	f.Add([]byte{0, 3, 0x27, 1, 'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h', 0x7f, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := decodeAll(b)
		// Theirs refuses a base that nothing refers to, passes over the bit for a negative one, and counts further.
		if len(b) > 1 && b[1] != 0 {
			b = append([]byte{b[0], 0}, b[2:]...)
			got, err = decodeAll(b)
		}
		want, wantErr := theirs(b)
		if err != nil && strings.Contains(err.Error(), "too large") {
			return
		}
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("got %v, want %v", err, wantErr)
		}
		if diff := cmp.Diff(want, got); err == nil && diff != "" {
			t.Error(diff)
		}
	})
}

// FuzzRequest looks for what a section must not lead to: more than its limits, or a head that breaks the rules.
func FuzzRequest(f *testing.F) {
	f.Add(block(f, get("cookie", "a=b")...))
	f.Add(append(plain(get()...), bytes.Repeat([]byte{0xff, 85 - 63}, 50)...))
	f.Fuzz(func(t *testing.T, b []byte) {
		limits := section.Limits{Bytes: 2000, Fields: 20}
		var d Decoder
		var head exchange.Head
		length, err := d.Request(b, &head, limits)
		if len(head.Fields) > limits.Fields {
			t.Fatalf("%d fields", len(head.Fields))
		}
		if err != nil {
			return
		}
		size := 0
		for _, f := range head.Fields {
			size += len(f.Name) + len(f.Value) + section.Overhead
			if !section.ValidName(f.Name) || !section.ValidValue(f.Value) || f.ID != exchange.IDOf(f.Name) {
				t.Errorf("%+v went through", f)
			}
		}
		if size > limits.Bytes || head.Method == "" || length < -1 {
			t.Errorf("%d bytes, method %q, length %d", size, head.Method, length)
		}
	})
}

func BenchmarkRequestSection(b *testing.B) {
	request := block(b, get("user-agent", "Mozilla/5.0 (X11; Linux x86_64) probe/1.0", "accept", "text/html,*/*;q=0.8", "accept-encoding", "gzip, deflate, br",
		"accept-language", "en-US,en;q=0.5", "cookie", "session=0123456789abcdef0123456789abcdef", "priority", "u=1, i")...)
	var d Decoder
	head := exchange.Head{Fields: make(exchange.Fields, 0, 16)}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := d.Request(request, &head, wide); err != nil {
			b.Fatal(err)
		}
		d.Reset()
	}
}
