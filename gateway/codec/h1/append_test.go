package h1

import (
	"bytes"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// fieldsOf makes fields of lines "Name: value".
func fieldsOf(lines ...string) exchange.Fields {
	var fields exchange.Fields
	for _, line := range lines {
		name, value, _ := strings.Cut(line, ": ")
		fields.Add(name, value)
	}
	return fields
}

func TestAppendRequest(t *testing.T) {
	const begin = "GET / HTTP/1.1\r\nHost: a.test\r\n"
	tests := map[string]struct {
		method, target, authority string // GET, /, a.test
		fields                    exchange.Fields
		m                         Message
		upgrade                   string
		want                      string
	}{
		"least":           {want: begin + "\r\n"},
		"query as it is":  {target: "/a?b=%zz;c?", want: "GET /a?b=%zz;c? HTTP/1.1\r\nHost: a.test\r\n\r\n"},
		"OPTIONS *":       {method: "OPTIONS", target: "*", want: "OPTIONS * HTTP/1.1\r\nHost: a.test\r\n\r\n"},
		"fields in order": {fields: fieldsOf("X-B: 1", "accept: */*", "x-b: 2"), want: begin + "X-B: 1\r\naccept: */*\r\nx-b: 2\r\n\r\n"},
		"length":          {method: "PUT", m: Message{Length: 5}, want: "PUT / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 5\r\n\r\n"},
		"chunked": {method: "PUT", m: Message{Length: Chunked}, fields: fieldsOf("Trailer: X-Sum"),
			want: "PUT / HTTP/1.1\r\nHost: a.test\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n"},
		"no content": {method: "POST", fields: fieldsOf("Trailer: X-Sum"),
			want: "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"},
		"no content, GET": {fields: fieldsOf("Content-Length: 0"), want: begin + "\r\n"},
		"unsaid":          {method: "POST", m: Message{Length: Unsaid}, want: "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"},
		"close":           {m: Message{Close: true}, want: begin + "Connection: close\r\n\r\n"},
		"expects": {method: "POST", m: Message{Length: 1, Continue: true}, fields: fieldsOf("expect: 100-continue"),
			want: "POST / HTTP/1.1\r\nHost: a.test\r\nExpect: 100-continue\r\nContent-Length: 1\r\n\r\n"},
		"expects no more": {method: "POST", m: Message{Length: 1}, fields: fieldsOf("Expect: 100-continue"),
			want: "POST / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 1\r\n\r\n"},
		"TE": {fields: fieldsOf("TE: trailers"), want: begin + "\r\n"},
		"upgrade": {upgrade: "websocket", fields: fieldsOf("Sec-WebSocket-Key: x"),
			want: begin + "Sec-WebSocket-Key: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"extended CONNECT": {method: "CONNECT", upgrade: "websocket", want: begin + "Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"all of Connection": {upgrade: "x", m: Message{Close: true}, fields: fieldsOf("te: Trailers"),
			want: begin + "Connection: close, Upgrade\r\nUpgrade: x\r\n\r\n"},
		"hop by hop": {fields: fieldsOf("Host: b", "Content-Length: 9", "Transfer-Encoding: chunked", "Connection: x", "Keep-Alive: 1",
			"Proxy-Connection: x",
			"Upgrade: x", "HTTP2-Settings: x", "X: 1"), want: begin + "X: 1\r\n\r\n"},
		"cookies": {fields: fieldsOf("cookie: a=1", "X: 1", "Cookie: b=2", "cookie: c=3"),
			want: begin + "cookie: a=1; b=2; c=3\r\nX: 1\r\n\r\n"},
		"a bad cookie": {fields: fieldsOf("cookie: a=1\r\nX: 1", "Cookie: b=2"), want: begin + "Cookie: b=2\r\n\r\n"},
		"bad cookies":  {fields: fieldsOf("cookie: a=1\x00"), want: begin + "\r\n"},
		"bad values": {fields: fieldsOf("A: 1\r\nB: 2", "C: \n", "D: \x00", "E: 0123456789\r", "Accept-Encoding: \x7f", "F: \t\xff"),
			want: begin + "F: \t\xff\r\n\r\n"},
		"bad names": {fields: exchange.Fields{{Name: "A: 1\r\nB"}, {Name: ""}, {Name: "C D"}, {Name: ":path"}, {Name: "E", Value: ""}},
			want: begin + "E: \r\n\r\n"},
		"bad line":    {method: "GE\r\nT", target: "/a?b", authority: "a\r\nX: 1", want: "GET /a?b HTTP/1.1\r\nHost: aX:1\r\n\r\n"},
		"bad upgrade": {upgrade: "a\r\nb", want: begin + "Connection: Upgrade\r\nUpgrade: ab\r\n\r\n"},
		"no host":     {authority: "-", want: "GET / HTTP/1.1\r\nHost: \r\n\r\n"},
		"largest": {method: "PATCH", m: Message{Length: 1<<63 - 1},
			want: "PATCH / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 9223372036854775807\r\n\r\n"},
		"PATCH nothing": {method: "PATCH", want: "PATCH / HTTP/1.1\r\nHost: a.test\r\nContent-Length: 0\r\n\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			head := exchange.Head{Method: or(tt.method, "GET"), Target: or(tt.target, "/"), Authority: or(tt.authority, "a.test"), Fields: tt.fields}
			if head.Authority == "-" {
				head.Authority = ""
			}
			if err := head.Normalize(); err != nil {
				t.Fatal(err)
			}
			if got := string(AppendRequest([]byte("before"), &head, &tt.m, tt.upgrade)); got != "before"+tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
		})
	}
	head := exchange.Head{Method: "GET", Authority: "a"}
	head.SetPath("/a b\r\nc\x7f")
	if got, want := string(AppendRequest(nil, &head, &Message{}, "")), "GET /abc HTTP/1.1\r\nHost: a\r\n\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func or(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

func TestAppendResponse(t *testing.T) {
	const ok = "HTTP/1.1 200 OK\r\n"
	const date = "Sun, 06 Nov 1994 08:49:37 GMT"
	tests := map[string]struct {
		status  int // 200
		fields  exchange.Fields
		m       Message // of HTTP/1.1
		upgrade string
		date    string
		extra   exchange.Fields
		want    string
	}{
		"length":      {m: Message{Length: 5}, want: ok + "Content-Length: 5\r\n\r\n"},
		"length 0":    {status: 404, want: "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n"},
		"chunked":     {m: Message{Length: Chunked}, want: ok + "Transfer-Encoding: chunked\r\n\r\n"},
		"close":       {m: Message{Length: 5, Close: true}, want: ok + "Content-Length: 5\r\nConnection: close\r\n\r\n"},
		"until close": {m: Message{Length: UntilClose}, want: ok + "Connection: close\r\n\r\n"},
		"unsaid":      {m: Message{Length: Unsaid}, want: ok + "\r\n"},
		"HTTP/1.0":    {m: Message{Proto: exchange.HTTP10, Length: 5}, want: ok + "Content-Length: 5\r\nConnection: keep-alive\r\n\r\n"},
		"HTTP/1.0, close": {m: Message{Proto: exchange.HTTP10, Length: 5, Close: true},
			want: ok + "Content-Length: 5\r\nConnection: close\r\n\r\n"},
		"HTTP/1.0, chunked": {m: Message{Proto: exchange.HTTP10, Length: Chunked}, want: ok + "Connection: close\r\n\r\n"},
		"204":               {status: 204, m: Message{Length: 5}, want: "HTTP/1.1 204 No Content\r\n\r\n"},
		"304":               {status: 304, m: Message{Length: Chunked}, want: "HTTP/1.1 304 Not Modified\r\n\r\n"},
		"304 with length":   {status: 304, m: Message{Length: 5}, want: "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"},
		"interim": {status: 103, m: Message{Close: true}, date: date, fields: fieldsOf("Link: a"),
			want: "HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"},
		"switch": {status: 101, m: Message{Length: Unsaid}, upgrade: "websocket", date: date,
			fields: fieldsOf("Sec-WebSocket-Accept: x", "Upgrade: y"),
			want:   "HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"},
		"date":            {date: date, fields: fieldsOf("A: 1"), want: ok + "A: 1\r\nContent-Length: 0\r\nDate: " + date + "\r\n\r\n"},
		"date of its own": {date: date, fields: fieldsOf("date: now"), want: ok + "date: now\r\nContent-Length: 0\r\n\r\n"},
		"extra": {fields: fieldsOf("A: 1"), extra: fieldsOf("Alt-Svc: h3=\":443\"", "B: \n"),
			want: ok + "A: 1\r\nAlt-Svc: h3=\":443\"\r\nContent-Length: 0\r\n\r\n"},
		"set-cookie stays": {fields: fieldsOf("Set-Cookie: a", "Set-Cookie: b"),
			want: ok + "Set-Cookie: a\r\nSet-Cookie: b\r\nContent-Length: 0\r\n\r\n"},
		"hop by hop": {fields: fieldsOf("Content-Length: 9", "Transfer-Encoding: chunked", "Connection: x", "Keep-Alive: 1",
			"Proxy-Connection: x", "Upgrade: x", "X: 1"),
			want: ok + "X: 1\r\nContent-Length: 0\r\n\r\n"},
		"bad fields": {fields: fieldsOf("A: 1\r\nB: 2", "Location: /\r\n", "Bad Name: 1", "Server: ok"),
			want: ok + "Server: ok\r\nContent-Length: 0\r\n\r\n"},
		"no reason":      {status: 299, want: "HTTP/1.1 299 \r\nContent-Length: 0\r\n\r\n"},
		"largest status": {status: 999, want: "HTTP/1.1 999 \r\nContent-Length: 0\r\n\r\n"},
		"no status":      {status: 1000, want: "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"},
		"negative":       {status: -1, want: "HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if tt.status == 0 {
				tt.status = 200
			}
			if tt.m.Proto == exchange.ProtoUnknown {
				tt.m.Proto = exchange.HTTP11
			}
			got := string(AppendResponse([]byte("before"), &exchange.Response{Status: tt.status, Fields: tt.fields}, &tt.m, tt.upgrade, tt.date,
				tt.extra))
			if got != "before"+tt.want {
				t.Errorf("got\n%q, want\n%q", got, tt.want)
			}
		})
	}
}

// TestReasons compares the phrases with net/http's, which has some that were renamed since.
func TestReasons(t *testing.T) {
	renamed := map[int]string{413: "Content Too Large", 414: "URI Too Long", 416: "Range Not Satisfiable", 422: "Unprocessable Content"}
	for status := leastStatus; status <= mostStatus; status++ {
		reason, ok := renamed[status]
		if !ok {
			reason = http.StatusText(status)
		}
		if status == http.StatusTeapot { // reserved and unused, says the registry
			reason = ""
		}
		line := statusLines[status-leastStatus]
		if got := strings.TrimSuffix(line[len("HTTP/1.1 200 "):], "\r\n"); got != reason {
			t.Errorf("%d: %q, want %q", status, got, reason)
		}
	}
}

func TestAppendChunks(t *testing.T) {
	b := AppendChunk([]byte("before"), nil)
	b = AppendChunk(b, []byte("hello"))
	b = append(AppendChunkHead(b, 0xabc), "..."...)
	b = AppendLastChunk(b, nil)
	if want := "before5\r\nhello\r\nabc\r\n...0\r\n\r\n"; string(b) != want {
		t.Errorf("got %q, want %q", b, want)
	}
	trailers := fieldsOf("Grpc-Status: 0", "Host: a", "Content-Length: 1", "Transfer-Encoding: chunked", "Authorization: x", "Cookie: x",
		"Connection: x",
		"TE: x", "Expect: x", "X-Bad: \r\n", "X Bad: 1", "X-Sum: 1")
	if got, want := string(AppendLastChunk(nil, trailers)), "0\r\nGrpc-Status: 0\r\nX-Sum: 1\r\n\r\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestClock(t *testing.T) {
	at := time.Date(1994, 11, 6, 9, 49, 37, 999, time.FixedZone("", 3600))
	var c Clock
	const want = "Sun, 06 Nov 1994 08:49:37 GMT"
	if got := string(AppendDate([]byte("x"), at)); got != "x"+want {
		t.Errorf("got %q", got)
	}
	var wait sync.WaitGroup
	for i := range 4 {
		wait.Go(func() {
			for j := range 100 {
				now := at.Add(time.Duration((i+j)%3) * time.Second)
				if got, want := c.Date(now), now.UTC().Format(http.TimeFormat); got != want {
					t.Errorf("got %q, want %q", got, want)
				}
			}
		})
	}
	wait.Wait()
	if got := c.Date(at); got != want {
		t.Errorf("got %q", got)
	}
	if allocs := testing.AllocsPerRun(100, func() { c.Date(at) }); allocs != 0 {
		t.Errorf("%v allocations within a second", allocs)
	}
}

// again is a connection on which the same bytes come again and again.
type again struct {
	text string
	rest string
}

func (s *again) Read(p []byte) (int, error) {
	if s.rest == "" {
		s.rest = s.text
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

const (
	browser = "GET /assets/app.js?v=20240611 HTTP/1.1\r\nHost: www.example.com\r\nConnection: keep-alive\r\n" +
		"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/126.0.0.0 Safari/537.36\r\n" +
		"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8\r\nReferer: https://www.example.com/\r\n" +
		"Accept-Encoding: gzip, deflate, br, zstd\r\nAccept-Language: en-US,en;q=0.9\r\nCookie: session=0123456789abcdef0123456789abcdef; theme=dark\r\n" +
		"Sec-Fetch-Mode: navigate\r\nIf-None-Match: \"5f3c-abc\"\r\n\r\n"
	answer = "HTTP/1.1 200 OK\r\nServer: origin\r\nDate: Sun, 06 Nov 1994 08:49:37 GMT\r\nContent-Type: text/plain\r\nContent-Length: 13\r\n\r\nHello, world!"
)

// TestNothingIsAllocated has messages of every framing parsed, read and written again.
func TestNothingIsAllocated(t *testing.T) {
	requests := &again{text: browser + post + "Content-Length: 5\r\n\r\nhello" + post +
		"Transfer-Encoding: chunked\r\n\r\n5;a=b\r\nhello\r\n1000\r\n" + strings.Repeat("x", 4096) + "\r\n0\r\nX-Sum: 1\r\n\r\n" +
		get + "Connection: upgrade\r\nUpgrade: websocket\r\nExpect: 100-continue\r\n\r\n" +
		"GET http://app.example.test?x HTTP/1.1\r\nHost: app.example.test\r\n\r\n"}
	responses := &again{text: answer + ContinueResponse + "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + "5\r\nhello\r\n0\r\n\r\n"}
	var in, back Reader
	in.Init(requests, make([]byte, 1024), Limits{})
	back.Init(responses, nil, Limits{})
	var head exchange.Head
	var resp exchange.Response
	extra := fieldsOf("Alt-Svc: h3")
	p, out := make([]byte, 1000), make([]byte, 0, 8192)
	var clock Clock
	now := time.Unix(1e9, 0)
	drain := func(r *Reader) {
		for {
			r.Ready()
			n, err := r.Read(p)
			out = AppendChunk(out, p[:n])
			if err == io.EOF {
				out = AppendLastChunk(out, r.Trailers())
				r.Next()
				return
			} else if err != nil {
				t.Fatal(err)
			}
		}
	}
	allocs := testing.AllocsPerRun(200, func() {
		for range 5 {
			var m Message
			if err := in.ReadRequest(&head, &m); err != nil {
				t.Fatal(err)
			}
			if err := head.Normalize(); err != nil {
				t.Fatal(err)
			}
			out = AppendRequest(out[:0], &head, &m, head.Protocol)
			drain(&in)
		}
		for range 3 {
			var m Message
			if err := back.ReadResponse(&resp, &m, "GET"); err != nil {
				t.Fatal(err)
			}
			out = AppendResponse(out[:0], &resp, &m, "", clock.Date(now), extra)
			drain(&back)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// The benchmarks read from memory. bytes/op is what one message is long.

func BenchmarkParseRequest(b *testing.B) {
	for name, raw := range map[string]string{
		"browser": browser,
		"small":   "GET /app/1?x=y HTTP/1.1\r\nHost: www.example.com\r\nUser-Agent: bench/1.0\r\nAccept: */*\r\nAccept-Encoding: gzip\r\n\r\n",
	} {
		b.Run(name, func(b *testing.B) {
			var r Reader
			r.Init(&again{text: raw}, make([]byte, 1024), Limits{})
			var head exchange.Head
			var m Message
			b.SetBytes(int64(len(raw)))
			b.ReportAllocs()
			for b.Loop() {
				if err := r.ReadRequest(&head, &m); err != nil {
					b.Fatal(err)
				}
				r.Next()
			}
		})
	}
}

func BenchmarkParseResponse(b *testing.B) {
	var r Reader
	r.Init(&again{text: answer}, nil, Limits{})
	var resp exchange.Response
	var m Message
	p := make([]byte, 1024)
	b.SetBytes(int64(len(answer)))
	b.ReportAllocs()
	for b.Loop() {
		if err := r.ReadResponse(&resp, &m, "GET"); err != nil {
			b.Fatal(err)
		}
		if _, err := r.Read(p); err != io.EOF {
			b.Fatal(err)
		}
		r.Next()
	}
}

func BenchmarkAppendRequest(b *testing.B) {
	var r Reader
	r.Init(strings.NewReader(browser), make([]byte, 1024), Limits{})
	var head exchange.Head
	var m Message
	if err := r.ReadRequest(&head, &m); err != nil {
		b.Fatal(err)
	}
	if err := head.Normalize(); err != nil {
		b.Fatal(err)
	}
	out := make([]byte, 0, 1024)
	b.ReportAllocs()
	for b.Loop() {
		out = AppendRequest(out[:0], &head, &m, "")
	}
}

func BenchmarkAppendResponse(b *testing.B) {
	resp := exchange.Response{Status: 200, Fields: fieldsOf("Server: origin", "Content-Type: text/plain", "Content-Length: 13")}
	m := Message{Proto: exchange.HTTP11, Length: 13}
	out := make([]byte, 0, 1024)
	var clock Clock
	now := time.Unix(1e9, 0)
	b.ReportAllocs()
	for b.Loop() {
		out = AppendResponse(out[:0], &resp, &m, "", clock.Date(now), nil)
	}
}

func BenchmarkChunkedBody(b *testing.B) {
	for name, chunk := range map[string]int{"chunks of 4 KiB": 4 << 10, "chunks of 32 KiB": 32 << 10} {
		b.Run(name, func(b *testing.B) {
			const total = 1 << 20
			raw := []byte("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
			for range total / chunk {
				raw = AppendChunk(raw, bytes.Repeat([]byte("x"), chunk))
			}
			raw = AppendLastChunk(raw, nil)
			var r Reader
			r.Init(&again{text: string(raw)}, nil, Limits{})
			p := make([]byte, 32<<10)
			var resp exchange.Response
			var m Message
			b.SetBytes(total)
			b.ReportAllocs()
			for b.Loop() {
				if err := r.ReadResponse(&resp, &m, "GET"); err != nil {
					b.Fatal(err)
				}
				for err := error(nil); err != io.EOF; {
					if _, err = r.Read(p); err != nil && err != io.EOF {
						b.Fatal(err)
					}
				}
				r.Next()
			}
		})
	}
}
