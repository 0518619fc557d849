package upstream

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// closedPort returns an address that nobody listens on.
func closedPort(t *testing.T) netip.AddrPort {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String())
}

// answering returns a script that reads a request and answers these bytes.
func answering(answer string) func(net.Conn) {
	return func(c net.Conn) {
		r, err := http.ReadRequest(bufio.NewReader(c))
		if err != nil {
			return
		}
		_, _ = io.Copy(io.Discard, r.Body)
		_, _ = io.WriteString(c, answer)
	}
}

// TestFaultBeforeHead: what an attempt without a response head says, and whether the request may be sent again.
func TestFaultBeforeHead(t *testing.T) {
	tests := map[string]struct {
		script    func(net.Conn) // nil: nobody listens
		want      exchange.Kind
		retryable bool
	}{
		"refused":           {nil, exchange.UpstreamConnect, true},
		"closed at once":    {answering(""), exchange.UpstreamReset, false},
		"half a head":       {answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n"), exchange.UpstreamReset, false},
		"no HTTP":           {answering("SSH-2.0-OpenSSH_9.6\r\n\r\n"), exchange.UpstreamProtocol, false},
		"names TLS":         {answering("TLS handshake tls: bad certificate\r\n\r\n"), exchange.UpstreamProtocol, false},
		"bad status":        {answering("HTTP/1.1 2x0 OK\r\n\r\n"), exchange.UpstreamProtocol, false},
		"bad length":        {answering("HTTP/1.1 200 OK\r\nContent-Length: -1\r\n\r\n"), exchange.UpstreamProtocol, false},
		"two lengths":       {answering("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab"), exchange.UpstreamProtocol, false},
		"bad field":         {answering("HTTP/1.1 200 OK\r\nno colon\r\n\r\n"), exchange.UpstreamProtocol, false},
		"unknown coding":    {answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n"), exchange.UpstreamProtocol, false},
		"endless head":      {answering("HTTP/1.1 200 OK\r\nA: " + strings.Repeat("a", MaxResponseHeaderBytes+1)), exchange.UpstreamProtocol, false},
		"switches unasked":  {answering("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n"), exchange.UpstreamProtocol, false},
		"only interim ones": {answering(strings.Repeat("HTTP/1.1 103 Early Hints\r\nA: b\r\n\r\n", 1000)), exchange.UpstreamReset, false},
		"too many interim ones": {answering(strings.Repeat("HTTP/1.1 103 Early Hints\r\n\r\n", 1001) + "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
			exchange.UpstreamProtocol, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			addr := closedPort(t)
			if tt.script != nil {
				addr = scripted(t, tt.script)
			}
			c := single(t, cluster(addr))
			_, fault := send(t.Context(), c, &Attempt{Request: request(t, "POST", "/"), Body: exchange.Bytes([]byte("body"))})
			if fault == nil || fault.Kind != tt.want || fault.Retryable != tt.retryable {
				t.Errorf("got %v, retryable %t; want %s, %t", fault, fault != nil && fault.Retryable, tt.want, tt.retryable)
			}
		})
	}
}

// TestBrokenBody: an answer that breaks off is never taken for a whole one.
func TestBrokenBody(t *testing.T) {
	tests := map[string]struct {
		answer string
		want   exchange.Kind
	}{
		"short of its length":  {"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc", exchange.UpstreamReset},
		"chunks without end":   {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n", exchange.UpstreamReset},
		"no chunk":             {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nzz\r\n", exchange.UpstreamProtocol},
		"chunk longer than it": {"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n", exchange.UpstreamProtocol},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := single(t, cluster(scripted(t, answering(tt.answer))))
			a, fault := send(t.Context(), c, &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
			if fault != nil {
				t.Fatal(fault)
			}
			got, err := io.ReadAll(a.Body)
			f, ok := errors.AsType[*exchange.Fault](err)
			if !ok || f.Kind != tt.want || f.Origin != exchange.SideUpstream {
				t.Errorf("read %q, %v", got, err)
			}
			if !strings.HasPrefix(string(got), "abc") {
				t.Errorf("what came was lost: %q", got)
			}
			_ = a.Body.Close()
		})
	}
}

// TestCauseOfEnd: an attempt that its own side ended is not blamed on the endpoint, before the head or after.
func TestCauseOfEnd(t *testing.T) {
	timeout := exchange.NewFault(exchange.UpstreamTimeout, nil)
	tests := map[string]struct {
		cause error
		want  exchange.Kind
	}{
		"limit":       {timeout, exchange.UpstreamTimeout},
		"client left": {nil, exchange.ClientAborted},
	}
	for name, tt := range tests {
		for _, when := range []string{"head", "body"} {
			for protocol, options := range map[config.UpstreamProtocol]originOptions{config.UpstreamHTTP1: {}, config.UpstreamH2C: {protocols: h2c}} {
				t.Run(name+" before "+when+" "+string(protocol), func(t *testing.T) {
					arrived := make(chan struct{}, 1)
					o := newOrigin(t, options, func(w http.ResponseWriter, r *http.Request) {
						if when == "body" {
							_ = http.NewResponseController(w).Flush()
						}
						arrived <- struct{}{}
						<-r.Context().Done()
					})
					conf := cluster(o.addr)
					conf.Protocol = protocol
					c := single(t, conf)
					ctx, cancel := context.WithCancelCause(t.Context())
					go func() {
						<-arrived
						if when == "head" {
							cancel(tt.cause)
						}
					}()
					a, fault := send(ctx, c, &Attempt{Request: request(t, "GET", "/"), Body: exchange.NoBody})
					if when == "body" {
						if fault != nil {
							t.Fatal(fault)
						}
						cancel(tt.cause)
						_, err := io.ReadAll(a.Body)
						fault, _ = errors.AsType[*exchange.Fault](err)
						_ = a.Body.Close()
					}
					if fault == nil || fault.Kind != tt.want {
						t.Errorf("got %v, want %s", fault, tt.want)
					}
				})
			}
		}
	}
}

// brokenBody is a client's body that ends in an error.
type brokenBody struct {
	exchange.Body
	err error
}

func (b *brokenBody) Read(p []byte) (int, error) {
	n, err := b.Body.Read(p)
	if err == io.EOF {
		err = b.err
	}
	return n, err
}

func (b *brokenBody) Length() int64 { return -1 }

// TestClientFault: a body that the client does not finish is the client's fault.
func TestClientFault(t *testing.T) {
	for protocol, options := range map[config.UpstreamProtocol]originOptions{config.UpstreamHTTP1: {}, config.UpstreamH2C: {protocols: h2c}} {
		for name, tt := range map[string]struct {
			err  error
			want exchange.Kind
		}{
			"too large": {exchange.NewFault(exchange.BodyTooLarge, nil), exchange.BodyTooLarge},
			"gone":      {io.ErrUnexpectedEOF, exchange.ClientAborted},
		} {
			t.Run(string(protocol)+" "+name, func(t *testing.T) {
				whole := make(chan bool, 1)
				o := newOrigin(t, options, func(_ http.ResponseWriter, r *http.Request) {
					_, err := io.Copy(io.Discard, r.Body)
					whole <- err == nil
				})
				conf := cluster(o.addr)
				conf.Protocol = protocol
				body := &brokenBody{exchange.Bytes([]byte("part")), tt.err}
				_, fault := send(t.Context(), single(t, conf), &Attempt{Request: request(t, "POST", "/"), Body: body})
				if fault == nil || fault.Kind != tt.want || fault.Retryable {
					t.Errorf("got %v", fault)
				}
				if receive(t, whole, "the endpoint's end of the body") {
					t.Error("the endpoint took the body for whole")
				}
			})
		}
	}
}

// TestMessage: what goes out is what came in, byte for byte where a meaning could be lost.
func TestMessage(t *testing.T) {
	for protocol, options := range map[config.UpstreamProtocol]originOptions{config.UpstreamHTTP1: {}, config.UpstreamH2C: {protocols: h2c}} {
		t.Run(string(protocol), func(t *testing.T) {
			o := newOrigin(t, options, func(w http.ResponseWriter, r *http.Request) {
				body, _ := io.ReadAll(r.Body)
				w.Header().Set("Trailer", "X-Sum")
				w.WriteHeader(http.StatusEarlyHints)
				w.WriteHeader(http.StatusTeapot)
				_, _ = io.WriteString(w, strings.Join([]string{
					r.Method, r.RequestURI, r.Host, strings.Join(r.Header["X-A"], "+"), strings.Join(r.Header["User-Agent"], "+"),
					r.Trailer.Get("X-End"), r.Trailer.Get("X-Unannounced"), string(body),
				}, "|"))
				w.Header().Set("X-Sum", "7")
			})
			conf := cluster(o.addr)
			conf.Protocol = protocol
			var interim []int
			body := &trailed{exchange.Bytes([]byte("the body"))}
			a, fault := send(t.Context(), single(t, conf), &Attempt{
				Request: request(t, "PATCH", "/a%20b?x=%zz;y", "x-a", "1", "x-a", "2", "Trailer", "x-end"),
				Body:    body, Inform: informed(func(status int, _ exchange.Fields) { interim = append(interim, status) }),
			})
			if fault != nil {
				t.Fatal(fault)
			}
			// An announced trailer goes out with every protocol, one that is not announced where the codec can.
			want := "PATCH|/a%20b?x=%zz;y|www.example.com|1+2||end|yes|the body"
			got, err := io.ReadAll(a.Body)
			if protocol == config.UpstreamH2C {
				want = strings.Replace(want, "yes", "", 1)
			}
			if string(got) != want || err != nil || a.Response.Status != http.StatusTeapot {
				t.Errorf("got %d %q, %v, want %q", a.Response.Status, got, err, want)
			}
			if got, _ := a.Body.Trailers().Lookup("X-Sum"); got != "7" {
				t.Errorf("trailers %v", a.Body.Trailers())
			}
			_ = a.Body.Close()
			if len(interim) != 1 || interim[0] != http.StatusEarlyHints {
				t.Errorf("interim responses %v", interim)
			}
		})
	}
}

// trailed is a body of unknown length with trailers.
type trailed struct{ exchange.Body }

func (trailed) Length() int64 { return -1 }
func (trailed) Trailers() exchange.Fields {
	return exchange.Fields{{Name: "x-end", Value: "end"}, {Name: "x-unannounced", Value: "yes"}}
}

// held is a body whose Read waits.
type held struct {
	exchange.Body
	reading chan struct{}
	let     chan struct{}
}

func (h *held) Read(p []byte) (int, error) {
	h.reading <- struct{}{}
	<-h.let
	return h.Body.Read(p)
}

// TestDetach: after it the old attempt reads nothing more, and it is refused when bytes could be lost.
func TestDetach(t *testing.T) {
	t.Run("not sent", func(t *testing.T) {
		if !(&Attempt{}).Detach() {
			t.Error("refused")
		}
	})
	t.Run("between reads", func(t *testing.T) {
		source := exchange.Bytes([]byte("abcdef"))
		a := &Attempt{Body: source}
		if n, err := a.readBody(make([]byte, 3)); n != 3 || err != nil {
			t.Fatal(n, err)
		}
		if !a.Detach() {
			t.Error("refused")
		}
		if n, err := a.readBody(make([]byte, 3)); n != 0 || !errors.Is(err, errDetached) {
			t.Errorf("read %d, %v", n, err)
		}
		if rest, _ := io.ReadAll(source); string(rest) != "def" {
			t.Errorf("%q is left", rest)
		}
		if a.hold.failed.Load() != nil {
			t.Error("giving the attempt up counts as the client's fault")
		}
	})
	t.Run("within a read", func(t *testing.T) {
		source := &held{exchange.Bytes([]byte("abc")), make(chan struct{}, 1), make(chan struct{})}
		a := &Attempt{Body: source}
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_, _ = a.readBody(make([]byte, 3))
		}()
		receive(t, source.reading, "reading")
		if a.Detach() {
			t.Error("allowed while a Read is under way")
		}
		close(source.let)
		receive(t, ended, "the end of the read")
	})
	t.Run("the read ends in time", func(t *testing.T) {
		source := &held{exchange.Bytes([]byte("abc")), make(chan struct{}, 1), make(chan struct{})}
		a := &Attempt{Body: source}
		go func() { _, _ = a.readBody(make([]byte, 3)) }()
		receive(t, source.reading, "reading")
		time.AfterFunc(time.Millisecond, func() { close(source.let) })
		if !a.Detach() {
			t.Error("refused though the Read ended")
		}
	})
}
