package downstream

import (
	"io"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

type benchmark struct {
	secure  bool
	request string
	size    int // of the response's body
}

// benchmarks are requests with answers that fit one write, and two that do not.
var benchmarks = map[string]benchmark{
	"get":        {request: benchmarkGet, size: 130},
	"get tls":    {request: benchmarkGet, size: 130, secure: true},
	"post":       {request: "POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 1000\r\n\r\n" + strings.Repeat("b", 1000), size: 130},
	"chunked":    {request: "POST / HTTP/1.1\r\nHost: x.test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n", size: 130},
	"256 KiB":    {request: benchmarkGet, size: 256 << 10},
	"long post":  {request: "POST / HTTP/1.1\r\nHost: x.test\r\nContent-Length: 20000\r\n\r\n" + strings.Repeat("b", 20_000), size: 130},
	"1 MiB tls":  {request: benchmarkGet, size: 1 << 20, secure: true},
	"1 MiB":      {request: benchmarkGet, size: 1 << 20},
	"head bytes": {request: strings.Replace(benchmarkGet, "\r\n\r\n", "\r\nX-Long: "+strings.Repeat("h", 6000)+"\r\n\r\n", 1), size: 130},
}

const benchmarkGet = "GET /a/path?with=query HTTP/1.1\r\nHost: x.test\r\nUser-Agent: benchmark/1\r\nAccept: */*\r\n\r\n"

// answerer reads the body and answers with one of a size, on one connection.
func answerer(size int) serve {
	body, scratch := make([]byte, size), make([]byte, 4<<10)
	return func(x *exchange.Exchange, w exchange.Responder) {
		for {
			if _, err := x.ReqBody.Read(scratch); err != nil {
				break
			}
		}
		x.Resp.Status = 200
		x.Resp.Fields.Add("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
		x.Resp.Fields.Add("Content-Type", "text/plain")
		if w.Respond(&x.Resp, int64(size)) != nil {
			return
		}
		for rest := body; len(rest) > 0; {
			n := min(len(rest), 32<<10)
			if _, err := w.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		_ = w.Finish(nil)
	}
}

// roundTrips returns a function that sends the request on one connection and reads the whole answer.
func roundTrips(t testing.TB, b benchmark) func() {
	h := build(t, houseOptions{secure: b.secure, handler: answerer(b.size)})
	v := h.visit(t)
	_ = v.SetDeadline(time.Time{})
	request := []byte(b.request)
	v.say(b.request)
	length := b.size // of a whole answer
	for line := ""; line != "\r\n"; {
		var err error
		if line, err = v.in.ReadString('\n'); err != nil {
			t.Fatal(err)
		}
		length += len(line)
	}
	if _, err := io.CopyN(io.Discard, v.in, int64(b.size)); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 256<<10)
	return func() {
		if _, err := v.Write(request); err != nil {
			t.Fatal(err)
		}
		for read := 0; read < length; {
			n, err := v.Read(buf[:min(len(buf), length-read)])
			if err != nil {
				t.Fatal(err)
			}
			read += n
		}
	}
}

// BenchmarkServeH1 measures a round trip over a real socket, the client's half included.
func BenchmarkServeH1(b *testing.B) {
	for name, tc := range benchmarks {
		b.Run(name, func(b *testing.B) {
			once := roundTrips(b, tc)
			once()
			b.SetBytes(int64(tc.size))
			b.ReportAllocs()
			for b.Loop() {
				once()
			}
		})
	}
}
