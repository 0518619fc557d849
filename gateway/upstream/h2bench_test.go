package upstream

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"

	"gatehouse.dev/gatehouse/gateway/codec/h2"
	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h2Endpoint makes a cluster of one h2c endpoint live until the test ends.
func h2Endpoint(tb testing.TB, addr netip.AddrPort) *Endpoint {
	conf := cluster(addr)
	conf.Protocol = config.UpstreamH2C
	m := NewManager(Options{})
	lease, _ := m.Apply([]*config.Cluster{conf})
	tb.Cleanup(func() {
		lease.Release()
		_ = m.Close()
	})
	return lease.Cluster("c").set.Load().list[0]
}

// h2Answerer is an endpoint that costs little: it answers each request, once it is whole, with the same head and this many bytes.
func h2Answerer(tb testing.TB, size int) netip.AddrPort {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		tb.Fatal(err)
	}
	var all sync.WaitGroup
	tb.Cleanup(func() {
		_ = l.Close()
		all.Wait()
	})
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { h2AnswerAll(c, size) })
		}
	})
	return netip.MustParseAddrPort(l.Addr().String())
}

func h2AnswerAll(c net.Conn, size int) {
	defer c.Close()
	if _, err := io.ReadFull(c, make([]byte, len(h2.Preface))); err != nil {
		return
	}
	var fields exchange.Fields
	fields.Add("Server", "test")
	fields.Add("Date", "Thu, 01 Jan 2026 00:00:00 GMT")
	fields.Add("Content-Type", "text/plain")
	head, _ := h2.AppendResponse(nil, 200, fields, int64(size))
	body := make([]byte, size)
	var in h2.Reader
	in.Init(nil, h2.ReaderLimits{})
	var credit h2.Credit
	credit.Init()
	var turns sync.WaitGroup
	defer turns.Wait()
	defer credit.Fail(io.EOF)
	var writing sync.Mutex
	windows := map[uint32]*h2.Window{} // of the answers under way
	out := h2.AppendSettings(nil, h2.Setting{ID: h2.SettingInitialWindowSize, Value: 1 << 20}, h2.Setting{ID: h2.SettingMaxConcurrentStreams, Value: 1000})
	out = h2.AppendWindowUpdate(out, 0, 1<<30)
	for {
		f, ok, err := in.Buffered()
		if err != nil {
			return
		}
		if !ok {
			writing.Lock()
			_, err = c.Write(out)
			writing.Unlock()
			if err != nil {
				return
			}
			out = out[:0]
			n, err := c.Read(in.Space())
			if err != nil {
				return
			}
			in.Advance(n)
			continue
		}
		switch {
		case f.Type == h2.TypeSettings && f.Flags&h2.FlagAck == 0:
			for p := f.Payload; len(p) >= 6; p = p[6:] {
				if h2.SettingID(binary.BigEndian.Uint16(p)) == h2.SettingInitialWindowSize {
					_ = credit.SetInitial(binary.BigEndian.Uint32(p[2:]))
				}
			}
			out = h2.AppendSettingsAck(out)
		case f.Type == h2.TypeWindowUpdate && f.Stream == 0:
			_ = credit.Add(binary.BigEndian.Uint32(f.Payload))
		case f.Type == h2.TypeWindowUpdate && windows[f.Stream] != nil:
			windows[f.Stream].Add(binary.BigEndian.Uint32(f.Payload))
		case f.Type == h2.TypePing && f.Flags&h2.FlagAck == 0:
			out = h2.AppendPing(out, true, [8]byte(f.Payload))
		case f.Type == h2.TypeData && f.Size > 0:
			out = h2.AppendWindowUpdate(h2.AppendWindowUpdate(out, 0, uint32(f.Size)), f.Stream, uint32(f.Size))
		}
		if !f.EndStream() {
			continue
		}
		at := len(out)
		out = append(h2.OpenHeaders(out), head...)
		out = h2.SealHeaders(out, at, f.Stream, false, h2.MinFrameSize)
		if size <= 1000 {
			out = h2.AppendData(out, f.Stream, body, true)
			continue
		}
		writing.Lock()
		_, _ = c.Write(out)
		writing.Unlock()
		out = out[:0]
		stream, w := f.Stream, &h2.Window{}
		w.Init(&credit)
		delete(windows, stream-20) // one that is over
		windows[stream] = w
		turns.Go(func() {
			frame := make([]byte, 0, h2.FrameHeader+h2.MinFrameSize)
			for rest := body; len(rest) > 0; {
				n, err := w.Take(min(len(rest), h2.MinFrameSize))
				if err != nil {
					return
				}
				frame = h2.AppendData(frame[:0], stream, rest[:n], n == len(rest))
				rest = rest[n:]
				writing.Lock()
				_, err = c.Write(frame)
				writing.Unlock()
				if err != nil {
					return
				}
			}
		})
	}
}

// BenchmarkRoundTripH2 is an exchange on a shared connection, with an endpoint that costs next to nothing.
func BenchmarkRoundTripH2(b *testing.B) {
	none := func() exchange.Body { return exchange.NoBody }
	post := &againReady{again{data: bytes.Repeat([]byte("x"), 1000), length: 1000}}
	large := &again{data: bytes.Repeat([]byte("x"), 1<<20), length: 1 << 20}
	for _, tt := range []struct {
		name   string
		method string
		rewind func() exchange.Body
		answer int
	}{
		{"get", "GET", none, 13}, {"post", "POST", post.rewind, 13}, {"post 1 MB", "POST", large.rewind, 13}, {"answer 1 MB", "GET", none, 1 << 20},
	} {
		b.Run(tt.name, func(b *testing.B) {
			e := h2Endpoint(b, h2Answerer(b, tt.answer))
			head, a, buf := benchHead(), &Attempt{}, make([]byte, 32<<10)
			head.Method = tt.method
			once(b, e, a, head, tt.rewind(), buf)
			b.ReportAllocs()
			b.ResetTimer()
			for range b.N {
				once(b, e, a, head, tt.rewind(), buf)
			}
		})
	}
	for _, streams := range []int{10, 100} {
		b.Run(fmt.Sprintf("get, %d at a time", streams), func(b *testing.B) {
			e := h2Endpoint(b, h2Answerer(b, 13))
			b.ReportAllocs()
			var all sync.WaitGroup
			for range streams {
				all.Go(func() {
					head, a, buf := benchHead(), &Attempt{}, make([]byte, 32<<10)
					for range b.N / streams {
						once(b, e, a, head, exchange.NoBody, buf)
					}
				})
			}
			all.Wait()
		})
	}
}

// TestAllocationsH2: what the benchmark shows, as a test.
func TestAllocationsH2(t *testing.T) {
	tests := map[string]interface{ rewind() exchange.Body }{
		"no body":        nil,
		"body in memory": &againReady{again{data: make([]byte, 1000), length: 1000}},
		"body to come":   &again{data: make([]byte, 10<<10), length: 10 << 10},
	}
	for name, body := range tests {
		t.Run(name, func(t *testing.T) {
			e := h2Endpoint(t, h2Answerer(t, 100))
			head, a, buf := benchHead(), &Attempt{}, make([]byte, 32<<10)
			allocs := testing.AllocsPerRun(1000, func() {
				if body == nil {
					once(t, e, a, head, exchange.NoBody, buf)
				} else {
					once(t, e, a, head, body.rewind(), buf)
				}
			})
			if allocs >= 0.5 && !raceDetector {
				t.Errorf("%v allocations for each exchange", allocs)
			}
		})
	}
}
