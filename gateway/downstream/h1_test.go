package downstream

import (
	"bufio"
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// serve makes a function a Handler.
type serve func(x *exchange.Exchange, w exchange.Responder)

func (s serve) ServeExchange(x *exchange.Exchange, w exchange.Responder) {
	s(x, w)
	_ = x.ReqBody.Close()
}

// patience bounds what should take no time.
const patience = 10 * time.Second

// house is a Server with one bind.
type house struct {
	*Server
	bind    Bind
	address string
	secure  bool

	mu     sync.Mutex
	counts map[exchange.Proto]int // connections; guarded by mu
	closed chan string
}

type houseOptions struct {
	secure  bool
	limits  Limits
	drain   time.Duration
	handler exchange.Handler
}

// build opens a server on a free port. It is shut down at the end of the test.
func build(t testing.TB, o houseOptions) *house {
	t.Helper()
	h := &house{secure: o.secure, counts: map[exchange.Proto]int{}, closed: make(chan string, 1)}
	certificate := selfSigned(t)
	h.Server = New(Options{
		Handler: o.handler,
		Limits:  o.limits,
		TLS: func(_ string, quic bool, _ *tls.ClientHelloInfo) (Handshake, error) {
			protos := []string{"h2", "http/1.1"}
			if quic {
				protos = []string{"h3"}
			}
			return Handshake{Config: &tls.Config{Certificates: []tls.Certificate{certificate}, NextProtos: protos}}, nil
		},
		DrainTime: o.drain,
		OnConnections: func(_ string, proto exchange.Proto, delta int) {
			h.mu.Lock()
			defer h.mu.Unlock()
			h.counts[proto] += delta
		},
		OnClosed: func(key string) { h.closed <- key },
	})
	for range 50 { // a free port may be taken before it is opened
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		port := netip.MustParseAddrPort(l.Addr().String()).Port()
		_ = l.Close()
		h.bind = Bind{Addr: netip.MustParseAddr("127.0.0.1"), Port: port}
		if o.secure {
			h.bind.Kind, h.bind.HTTP3 = KindTLS, true
		}
		if problems := h.Apply([]Bind{h.bind}); len(problems) == 0 {
			h.address = l.Addr().String()
			t.Cleanup(func() {
				ctx, cancel := context.WithTimeout(context.Background(), patience)
				defer cancel()
				if err := h.Shutdown(ctx); err != nil {
					t.Errorf("shutdown: %v", err)
				}
			})
			return h
		}
		h.Apply(nil)
	}
	t.Fatal("no port is free")
	return nil
}

// key makes certificates once for all tests.
var key = sync.OnceValues(func() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) })

func selfSigned(t testing.TB) tls.Certificate {
	t.Helper()
	private, err := key()
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), DNSNames: []string{"x.test"}}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &private.PublicKey, private)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: private}
}

// count returns the open connections of a protocol as they were told.
func (h *house) count(proto exchange.Proto) int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.counts[proto]
}

// visitor is a client's connection.
type visitor struct {
	t   testing.TB
	tcp *net.TCPConn
	net.Conn
	in *bufio.Reader
}

func (h *house) visit(t testing.TB) *visitor {
	t.Helper()
	v, err := h.dial(t)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func (h *house) dial(t testing.TB) (*visitor, error) {
	conn, err := net.Dial("tcp", h.address)
	if err != nil {
		return nil, err
	}
	v := &visitor{t: t, Conn: conn}
	v.tcp, _ = conn.(*net.TCPConn)
	_ = conn.SetDeadline(time.Now().Add(patience))
	if h.secure {
		secure := tls.Client(conn, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}, ServerName: "x.test"})
		if err := secure.Handshake(); err != nil {
			_ = conn.Close()
			return nil, err
		}
		v.Conn = secure
	}
	v.in = bufio.NewReader(v.Conn)
	t.Cleanup(func() { _ = conn.Close() })
	return v, nil
}

// say sends raw bytes.
func (v *visitor) say(text string) {
	v.t.Helper()
	if _, err := io.WriteString(v, text); err != nil {
		v.t.Fatal(err)
	}
}

// answer is a response as net/http reads it, with its body.
type answer struct {
	*http.Response
	body string
}

// hear reads a response to a request with this method.
func (v *visitor) hear(method string) answer {
	v.t.Helper()
	resp, err := http.ReadResponse(v.in, &http.Request{Method: method})
	if err != nil {
		v.t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		v.t.Fatalf("%v after %d bytes of the body", err, len(body))
	}
	return answer{resp, string(body)}
}

// wantEnd fails unless the server ends the connection without another byte.
func (v *visitor) wantEnd() {
	v.t.Helper()
	if rest, err := io.ReadAll(v.in); err != nil || len(rest) > 0 {
		v.t.Errorf("got %q, %v; want the end of the connection", rest, err)
	}
}

// each runs a test over plaintext and over TLS.
func each(t *testing.T, body func(t *testing.T, secure bool)) {
	t.Helper()
	for name, secure := range map[string]bool{"plain": false, "tls": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			body(t, secure)
		})
	}
}

// reply answers with a text.
func reply(w exchange.Responder, status int, text string) {
	resp := exchange.Response{Status: status}
	resp.Fields.Add("X-From", "handler")
	if w.Respond(&resp, int64(len(text))) != nil {
		return
	}
	_, _ = io.WriteString(w, text)
	_ = w.Finish(nil)
}

// echo answers with what the request was: line, fields and body, or as the fault of the exchange says.
func echo(x *exchange.Exchange, w exchange.Responder) {
	if x.Fault != nil {
		reply(w, x.Fault.Status, string(x.Fault.Kind))
		return
	}
	if x.Req.Method == "CONNECT" {
		reply(w, 405, string(exchange.MethodRefused))
		return
	}
	body, err := io.ReadAll(x.ReqBody)
	if err != nil {
		fault := exchange.AsFault(err, exchange.FilterFailed)
		reply(w, fault.Status, string(fault.Kind))
		return
	}
	var text bytes.Buffer
	text.WriteString(x.Req.Method + " " + x.Req.Target + " " + x.Req.Authority + " " + x.Peer.Proto.String() + "\n")
	for _, f := range x.Req.Fields {
		text.WriteString(f.Name + "=" + f.Value + "\n")
	}
	text.WriteString(strconv.FormatInt(x.ReqBody.Length(), 10) + ":")
	text.Write(body)
	for _, f := range x.ReqBody.Trailers() {
		text.WriteString("\n" + f.Name + "=" + f.Value)
	}
	reply(w, 200, text.String())
}

const get = "GET /a?b HTTP/1.1\r\nHost: x.test\r\n\r\n"

func TestH1Requests(t *testing.T) {
	const host = "Host: x.test\r\n"
	tests := map[string]struct {
		request string
		want    string
	}{
		"get":                {get, "GET /a?b x.test HTTP/1.1\n0:"},
		"empty line first":   {"\r\n" + get, "GET /a?b x.test HTTP/1.1\n0:"},
		"fields":             {"GET / HTTP/1.1\r\n" + host + "X-A: 1\r\nx-b:2\r\n\r\n", "GET / x.test HTTP/1.1\nX-A=1\nx-b=2\n0:"},
		"length":             {"POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello", "POST / x.test HTTP/1.1\nContent-Length=5\n5:hello"},
		"empty body":         {"POST / HTTP/1.1\r\n" + host + "Content-Length: 0\r\n\r\n", "POST / x.test HTTP/1.1\nContent-Length=0\n0:"},
		"chunked":            {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n3;x=y\r\n wo\r\n0\r\n\r\n", "hello wo"},
		"trailers":           {"POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 7\r\n\r\n", "-1:hi\nX-Sum=7"},
		"HTTP/1.0 kept":      {"GET / HTTP/1.0\r\n" + host + "Connection: keep-alive\r\n\r\n", "GET / x.test HTTP/1.0\n"},
		"longer than a read": {"GET / HTTP/1.1\r\n" + host + "X-A: " + strings.Repeat("a", 20_000) + "\r\n\r\n", strings.Repeat("a", 20_000) + "\n0:"},
		"body in two reads":  {"POST / HTTP/1.1\r\n" + host + "Content-Length: 100000\r\n\r\n" + strings.Repeat("b", 100_000), strings.Repeat("b", 100_000)},
	}
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo)})
		one := h.visit(t)
		for name, tc := range tests {
			for _, size := range []int{0, 1, 7, 1000} { // bytes a write; 0 is all at once
				if size == 1 && len(tc.request) > 1000 {
					continue
				}
				for rest := tc.request; len(rest) > 0; {
					n := len(rest)
					if size > 0 {
						n = min(n, size)
					}
					one.say(rest[:n])
					rest = rest[n:]
				}
				if got := one.hear("GET"); got.StatusCode != 200 || !strings.Contains(got.body, tc.want) {
					t.Errorf("%s in writes of %d: got %d %.200q, want %.200q in it", name, size, got.StatusCode, got.body, tc.want)
				}
			}
		}
	})
}

func TestH1Pipeline(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo)})
		v := h.visit(t)
		var all strings.Builder
		const requests = 300
		for i := range requests {
			switch i % 3 {
			case 0:
				all.WriteString("GET /" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: x.test\r\n\r\n")
			case 1:
				all.WriteString("POST /" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: x.test\r\nContent-Length: 300\r\n\r\n" + strings.Repeat("c", 300))
			case 2:
				all.WriteString("PUT /" + strconv.Itoa(i) + " HTTP/1.1\r\nHost: x.test\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
			}
		}
		go func() { _, _ = io.WriteString(v, all.String()) }()
		for i := range requests {
			if got := v.hear("GET"); !strings.Contains(got.body, " /"+strconv.Itoa(i)+" ") {
				t.Fatalf("answer %d: got %q", i, got.body)
			}
		}
	})
}

// respond answers with a body that is written in parts, its length told or not, and with trailers.
func respond(status int, told bool, parts []string, trailers exchange.Fields) serve {
	return func(_ *exchange.Exchange, w exchange.Responder) {
		length := int64(-1)
		if told {
			length = int64(len(strings.Join(parts, "")))
		}
		resp := exchange.Response{Status: status}
		resp.Fields.Add("Date", "Mon, 02 Jan 2006 15:04:05 GMT")
		if w.Respond(&resp, length) != nil {
			return
		}
		for _, part := range parts {
			if _, err := io.WriteString(w, part); err != nil {
				return
			}
		}
		_ = w.Finish(trailers)
	}
}

func TestH1Responses(t *testing.T) {
	big := strings.Repeat("0123456789abcdef", 1<<16)
	var sum exchange.Fields
	sum.Add("X-Sum", "7")
	type want struct {
		body             string
		length           int64
		chunked, closing bool
		trailer          string
	}
	tests := map[string]struct {
		request string
		handler serve
		want    want
	}{
		"length":              {get, respond(200, true, []string{"hello"}, nil), want{body: "hello", length: 5}},
		"length, parts":       {get, respond(200, true, []string{"he", "", "llo"}, nil), want{body: "hello", length: 5}},
		"empty":               {get, respond(200, true, nil, nil), want{length: 0}},
		"chunked":             {get, respond(200, false, []string{"hel", "lo"}, nil), want{body: "hello", length: -1, chunked: true}},
		"chunked, empty":      {get, respond(200, false, nil, nil), want{length: -1, chunked: true}},
		"chunked, trailers":   {get, respond(200, false, []string{"hi"}, sum), want{body: "hi", length: -1, chunked: true, trailer: "7"}},
		"big":                 {get, respond(200, true, []string{big}, nil), want{body: big, length: 1 << 20}},
		"big, chunked":        {get, respond(200, false, []string{big}, nil), want{body: big, length: -1, chunked: true}},
		"big after small":     {get, respond(200, true, []string{"small", big[:16<<10], big}, nil), want{body: "small" + big[:16<<10] + big, length: 5 + 16<<10 + 1<<20}},
		"just under a buffer": {get, respond(200, false, []string{big[:16<<10-150], "x", big[:300]}, nil), want{body: big[:16<<10-150] + "x" + big[:300], length: -1, chunked: true}},
		"204":                 {get, respond(204, false, nil, nil), want{length: 0}},
		"204 with a length":   {get, respond(204, true, nil, nil), want{length: 0}},
		"304":                 {get, respond(304, false, nil, nil), want{length: 0}},
		"HEAD":                {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", respond(200, true, []string{"hello"}, nil), want{length: 5}},
		"HEAD of unknown":     {"HEAD / HTTP/1.1\r\nHost: x\r\n\r\n", respond(200, false, nil, nil), want{length: -1}},
		"HTTP/1.0":            {"GET / HTTP/1.0\r\n\r\n", respond(200, true, []string{"hello"}, nil), want{body: "hello", length: 5, closing: true}},
		"HTTP/1.0, unknown":   {"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", respond(200, false, []string{"hello", big}, sum), want{body: "hello" + big, length: -1, closing: true}},
		"Connection: close":   {"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", respond(200, true, []string{"hello"}, nil), want{body: "hello", length: 5, closing: true}},
	}
	each(t, func(t *testing.T, secure bool) {
		for name, tc := range tests {
			t.Run(name, func(t *testing.T) {
				h := build(t, houseOptions{secure: secure, handler: tc.handler})
				v := h.visit(t)
				method, _, _ := strings.Cut(tc.request, " ")
				for range 2 {
					v.say(tc.request)
					got := v.hear(method)
					chunked := len(got.TransferEncoding) > 0
					if got.body != tc.want.body || got.ContentLength != tc.want.length || chunked != tc.want.chunked ||
						got.Close != tc.want.closing || got.Trailer.Get("X-Sum") != tc.want.trailer {
						t.Errorf("got %d bytes, length %d, chunked %v, closing %v, trailers %v", len(got.body), got.ContentLength, chunked, got.Close, got.Trailer)
					}
					if tc.want.closing {
						v.wantEnd()
						return
					}
				}
			})
		}
	})
}

// The head tells the date when the handler does not, and where HTTP/3 is.
func TestH1Fields(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo)})
		v := h.visit(t)
		v.say(get)
		got := v.hear("GET")
		if _, err := http.ParseTime(got.Header.Get("Date")); err != nil {
			t.Errorf("Date: %v", err)
		}
		want := ""
		if secure {
			want = `h3=":` + strconv.Itoa(int(h.bind.Port)) + `"; ma=86400`
		}
		if got := got.Header.Values("Alt-Svc"); strings.Join(got, "|") != want {
			t.Errorf("Alt-Svc: got %q, want %q", got, want)
		}
		if got.Header.Get("X-From") != "handler" {
			t.Errorf("got the fields %v", got.Header)
		}
	})
}

// A head goes out with its body in one write, and at Flush before it.
func TestH1Flush(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		next := make(chan struct{})
		h := build(t, houseOptions{secure: secure, handler: serve(func(_ *exchange.Exchange, w exchange.Responder) {
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			_ = w.Flush()
			for range next {
				_, _ = io.WriteString(w, "tick")
				_ = w.Flush()
			}
			_ = w.Finish(nil)
		})})
		v := h.visit(t)
		v.say(get)
		resp, err := http.ReadResponse(v.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, 4)
		for range 3 {
			next <- struct{}{}
			if _, err := io.ReadFull(resp.Body, buf); err != nil || string(buf) != "tick" {
				t.Fatalf("%q, %v", buf, err)
			}
		}
		close(next)
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v at the end", rest, err)
		}
	})
}

func TestH1Inform(t *testing.T) {
	handler := serve(func(_ *exchange.Exchange, w exchange.Responder) {
		var fields exchange.Fields
		fields.Add("Link", "</style.css>; rel=preload")
		_ = w.Inform(103, fields)
		reply(w, 200, "ok")
	})
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: handler})
		v := h.visit(t)
		v.say(get)
		if early := v.hear("GET"); early.StatusCode != 103 || early.Header.Get("Link") == "" || early.Header.Get("Date") != "" {
			t.Errorf("got %d %v first", early.StatusCode, early.Header)
		}
		if got := v.hear("GET"); got.StatusCode != 200 || got.body != "ok" {
			t.Errorf("got %d %q then", got.StatusCode, got.body)
		}
		v.say("GET / HTTP/1.0\r\nHost: x\r\n\r\n")
		if got := v.hear("GET"); got.StatusCode != 200 {
			t.Errorf("an HTTP/1.0 client got %d first", got.StatusCode)
		}
	})
}

func TestH1Peer(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		peers := make(chan exchange.Peer, 1)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			peers <- x.Peer
			reply(w, 200, x.Req.Scheme)
		})})
		v := h.visit(t)
		v.say(get)
		got, peer := v.hear("GET"), <-peers
		local := netip.MustParseAddrPort(v.LocalAddr().String())
		if peer.Bind != h.bind.Key() || peer.Remote != local || peer.RemoteIP != "127.0.0.1" || peer.Local.String() != h.address || peer.Proto != exchange.HTTP11 {
			t.Errorf("got %+v", peer)
		}
		if secure != (peer.TLS != nil) || secure && (peer.TLS.ServerName != "x.test" || peer.TLS.Version != tls.VersionTLS13) {
			t.Errorf("got TLS %+v", peer.TLS)
		}
		if want := map[bool]string{false: "http", true: "https"}[secure]; got.body != want {
			t.Errorf("got the scheme %q", got.body)
		}
	})
}

// What breaks the protocol is answered, goes through the Handler, and ends the connection.
func TestH1BadRequests(t *testing.T) {
	limits := Limits{MaxHeaderBytes: 8 << 10, MaxHeaderCount: 20, MaxBodyBytes: 1000}
	tests := map[string]struct {
		request string
		want    string
	}{
		"no request":      {"nonsense\r\n\r\n", "400 bad_request"},
		"no host":         {"GET / HTTP/1.1\r\n\r\n", "400 bad_request"},
		"many fields":     {"GET / HTTP/1.1\r\nHost: x\r\n" + strings.Repeat("a: b\r\n", 30) + "\r\n", "431 fields_too_large"},
		"long field":      {"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 10<<10) + "\r\n\r\n", "431 fields_too_large"},
		"endless head":    {"GET / HTTP/1.1\r\nHost: x\r\nA: " + strings.Repeat("b", 100<<10), "431 fields_too_large"},
		"long body":       {"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1001\r\n\r\n", "413 body_too_large"},
		"longer chunks":   {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n" + strings.Repeat("b", 0xffff) + "\r\n0\r\n\r\n", "413 body_too_large"},
		"malformed chunk": {"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5x\r\nhello\r\n0\r\n\r\n", "400 bad_request"},
		"CONNECT":         {"CONNECT x:80 HTTP/1.1\r\nHost: x:80\r\n\r\n", "405 method_refused"},
		"body and switch": {"GET / HTTP/1.1\r\nHost: x\r\nConnection: upgrade\r\nUpgrade: y\r\nContent-Length: 2\r\n\r\nhi", "400 upgrade_unsupported"},
	}
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(echo), limits: limits})
		for name, tc := range tests {
			v := h.visit(t)
			go func() { _, _ = io.WriteString(v, tc.request+get) }() // the server may stop reading
			got := v.hear("GET")
			if text := strconv.Itoa(got.StatusCode) + " " + got.body; text != tc.want || !got.Close {
				t.Errorf("%s: got %q, closing %v, want %q", name, text, got.Close, tc.want)
			}
			v.wantEnd()
		}
		// What was received whole may be refused without ending the connection.
		v := h.visit(t)
		for size, want := range map[int]int{1000: 200, 1001: 413} {
			v.say("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n" + strconv.FormatInt(int64(size), 16) + "\r\n" +
				strings.Repeat("b", size) + "\r\n0\r\n\r\n")
			if got := v.hear("POST"); got.StatusCode != want {
				t.Errorf("a chunked body of %d bytes: got %d, want %d", size, got.StatusCode, want)
			}
		}
	})
}

func TestH1Continue(t *testing.T) {
	const expecting = "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\n"
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			if x.Req.Target == "/refused" {
				reply(w, 403, x.Req.Fields.Get(exchange.Expect))
				return
			}
			echo(x, w)
		})})
		t.Run("the body is wanted", func(t *testing.T) {
			v := h.visit(t)
			for range 2 {
				v.say(expecting)
				if got := v.hear("POST"); got.StatusCode != 100 {
					t.Fatalf("got %d, want 100", got.StatusCode)
				}
				v.say("hello")
				if got := v.hear("POST"); got.StatusCode != 200 || !strings.HasSuffix(got.body, "5:hello") {
					t.Fatalf("got %d %q", got.StatusCode, got.body)
				}
			}
		})
		t.Run("the body comes unasked", func(t *testing.T) {
			v := h.visit(t)
			for range 2 {
				v.say(expecting + "hello")
				if got := v.hear("POST"); got.StatusCode != 200 || !strings.HasSuffix(got.body, "5:hello") {
					t.Fatalf("got %d %q", got.StatusCode, got.body)
				}
			}
		})
		t.Run("the body is not wanted", func(t *testing.T) {
			v := h.visit(t)
			v.say(strings.Replace(expecting, " / ", " /refused ", 1))
			if got := v.hear("POST"); got.StatusCode != 403 || !got.Close || got.body != "100-continue" {
				t.Fatalf("got %d, closing %v; the handler was told that the client expects %q", got.StatusCode, got.Close, got.body)
			}
			v.wantEnd()
		})
	})
}

// A body that was not read to its end is never taken for a request.
func TestH1UnreadBody(t *testing.T) {
	const smuggled = "GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"
	each(t, func(t *testing.T, secure bool) {
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			if strings.Contains(x.Req.Target, "smuggled") {
				t.Error("the body was served as a request")
			}
			reply(w, 200, "early")
		})})
		for name, request := range map[string]string{
			"length":  "POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n" + smuggled,
			"chunked": "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
		} {
			v := h.visit(t)
			v.say(request)
			if got := v.hear("POST"); got.body != "early" || !got.Close {
				t.Errorf("%s: got %q, closing %v", name, got.body, got.Close)
			}
			v.say(smuggled) // the client still sends; it is not cut off before it has read the answer
			v.wantEnd()
		}
		// What lies in the buffer whole is skipped, and the connection goes on.
		v := h.visit(t)
		for range 2 {
			v.say("POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello")
			if got := v.hear("POST"); got.body != "early" || got.Close {
				t.Errorf("a short body: got %q, closing %v", got.body, got.Close)
			}
		}
	})
}

// Both bodies move at once, read and written by different goroutines, and Close ends a read that waits.
func TestH1FullDuplex(t *testing.T) {
	each(t, func(t *testing.T, secure bool) {
		closed := make(chan error, 1)
		h := build(t, houseOptions{secure: secure, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
			parts := make(chan string)
			ended := make(chan error, 1)
			go func() {
				defer close(parts)
				buf := make([]byte, 64)
				for {
					n, err := x.ReqBody.Read(buf)
					if n > 0 {
						parts <- string(buf[:n])
					}
					if err != nil {
						ended <- err
						return
					}
				}
			}()
			_ = w.Respond(&exchange.Response{Status: 200}, -1)
			_ = w.Flush()
			for part := range parts {
				_, _ = io.WriteString(w, part)
				_ = w.Flush()
				if part == "enough" {
					break
				}
			}
			_ = x.ReqBody.Close()
			for range parts { // until the reader has ended
			}
			closed <- <-ended
			_ = w.Finish(nil)
		})})
		v := h.visit(t)
		v.say("POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")
		resp, err := http.ReadResponse(v.in, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, part := range []string{"ping", "pong", "enough"} {
			v.say(strconv.FormatInt(int64(len(part)), 16) + "\r\n" + part + "\r\n")
			got := make([]byte, len(part))
			if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != part {
				t.Fatalf("%q, %v", got, err)
			}
		}
		if rest, err := io.ReadAll(resp.Body); err != nil || len(rest) > 0 {
			t.Errorf("%q, %v at the end", rest, err)
		}
		if fault, ok := errors.AsType[*exchange.Fault](<-closed); !ok || fault.Kind != exchange.ClientAborted {
			t.Errorf("the read ended with %v", fault)
		}
		v.wantEnd()
	})
}
