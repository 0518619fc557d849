package downstream

import (
	"context"
	"io"
	"net/http"
	"syscall"
	"testing"
	"time"

	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"

	"gatehouse.dev/gatehouse/gateway/codec/h3"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// brief answers with a small body and does not touch the request's.
func brief(size int) serve {
	body := make([]byte, size)
	return func(x *exchange.Exchange, w exchange.Responder) {
		x.Resp.Status = 200
		x.Resp.Fields.Add("content-type", "text/plain")
		x.Resp.Fields.Add("server", "probe")
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

// BenchmarkServeH3 measures requests over loopback, the client's half included: quic-go's HTTP/3 client with one request at a time; a bare
// QUIC client with many; and, for comparison, the same QUIC traffic between two bare ends, which is what quic-go itself costs.
func BenchmarkServeH3(b *testing.B) {
	b.Run("http3 client", func(b *testing.B) {
		h := build(b, houseOptions{secure: true, handler: brief(130)})
		transport := &http3.Transport{TLSClientConfig: h3TLS()}
		defer transport.Close()
		b.ReportAllocs()
		for b.Loop() {
			req, _ := http.NewRequest("GET", "https://"+h.address+"/", nil)
			req.Host = "x.test"
			resp, err := transport.RoundTrip(req)
			if err != nil {
				b.Fatal(err)
			}
			if n, err := io.Copy(io.Discard, resp.Body); n != 130 || err != nil {
				b.Fatal(n, err)
			}
		}
	})
	for name, size := range map[string]int{"130 B": 130, "4 KiB": 4 << 10, "1 MiB": 1 << 20} {
		b.Run("bare client/"+name, func(b *testing.B) {
			h := build(b, houseOptions{secure: true, handler: brief(size)})
			b.SetBytes(int64(size))
			h3Load(b, h.address, size)
		})
	}
	b.Run("quic-go alone/130 B", func(b *testing.B) { h3Load(b, h3Floor(b, 160), 130) })
}

// h3Load sends GET requests on one connection, 16 at a time for each processor.
func h3Load(b *testing.B, address string, size int) {
	conn := h3Dial(b, address)
	request := h3Frame(1, []byte("\x00\x00\xd1\xd7\x50\x06x.test\xc1"))
	b.ReportAllocs()
	b.SetParallelism(16)
	b.ResetTimer()
	before := processorTime()
	defer func() { b.ReportMetric(float64((processorTime()-before).Nanoseconds())/float64(b.N), "cpu-ns/op") }()
	b.RunParallel(func(pb *testing.PB) {
		buf := make([]byte, 64<<10)
		for pb.Next() {
			str, err := conn.OpenStreamSync(context.Background())
			if err != nil {
				b.Error(err)
				return
			}
			_, _ = str.Write(request)
			_ = str.Close()
			got := 0
			for err == nil {
				var n int
				n, err = str.Read(buf)
				got += n
			}
			if err != io.EOF || got < size {
				b.Errorf("%d bytes, %v", got, err)
				return
			}
		}
	})
}

// processorTime is what the process has used; unlike the clock it does not count what else the machine does.
func processorTime() time.Duration {
	var usage syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano() + usage.Stime.Nano())
}

// h3Floor is a server that answers every stream with so many bytes and knows nothing of HTTP.
func h3Floor(b *testing.B, size int) string {
	listener, err := quic.ListenAddr("127.0.0.1:0", h3ServerTLS(b), (&http3Server{bind: &bind{options: &Options{Limits: Limits{}.WithDefaults()}}}).config())
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = listener.Close() })
	answer := make([]byte, size)
	go func() {
		conn, err := listener.Accept(context.Background())
		if err != nil {
			return
		}
		var w workers
		for {
			str, err := conn.AcceptStream(context.Background())
			if err != nil {
				w.close()
				return
			}
			w.run(h3Echo{str, answer})
		}
	}()
	return listener.Addr().String()
}

type h3Echo struct {
	str    *quic.Stream
	answer []byte
}

func (e h3Echo) run(*exchange.Exchange) {
	var buf [4 << 10]byte
	for {
		if _, err := e.str.Read(buf[:]); err != nil {
			break
		}
	}
	_, _ = e.str.Write(e.answer)
	_ = e.str.Close()
	e.str.ReleaseStreamCredit()
}

func h3Frame(kind uint64, payload []byte) []byte {
	return append(h3.AppendVarint(h3.AppendVarint(nil, kind), uint64(len(payload))), payload...)
}
