package downstream

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/quic-go/qpack"
	"github.com/quic-go/quic-go"
	"github.com/quic-go/quic-go/http3"
	"github.com/quic-go/quic-go/quicvarint"

	"gatehouse.dev/gatehouse/gateway/codec/h3"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

// h3TLS is a client's.
func h3TLS() *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"h3"}, ServerName: "x.test"}
}

func h3ServerTLS(t testing.TB) *tls.Config {
	return &tls.Config{Certificates: []tls.Certificate{selfSigned(t)}, NextProtos: []string{"h3"}}
}

// h3Connect opens a QUIC connection.
func h3Connect(t testing.TB, address string) (*quic.Conn, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := quic.DialAddr(ctx, address, h3TLS(), &quic.Config{InitialStreamReceiveWindow: 64 << 10, MaxStreamReceiveWindow: 4 << 20})
	if err == nil {
		t.Cleanup(func() { _ = conn.CloseWithError(0x100, "") })
	}
	return conn, err
}

// h3Dial opens a QUIC connection and the client's control stream.
func h3Dial(t testing.TB, address string) *quic.Conn {
	t.Helper()
	conn, err := h3Connect(t, address)
	if err != nil {
		t.Fatal(err)
	}
	h3Uni(t, conn, "\x00\x04\x00")
	return conn
}

// h3Uni opens a unidirectional stream with these bytes.
func h3Uni(t testing.TB, conn *quic.Conn, text string) *quic.SendStream {
	t.Helper()
	str, err := conn.OpenUniStream()
	if err == nil {
		_, err = io.WriteString(str, text)
	}
	if err != nil {
		t.Fatal(err)
	}
	return str
}

// h3Request is a request stream of a client that writes what it likes.
type h3Request struct {
	t testing.TB
	*quic.Stream
	in quicvarint.Reader
}

func h3Open(t testing.TB, conn *quic.Conn) *h3Request {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	str, err := conn.OpenStreamSync(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_ = str.SetDeadline(time.Now().Add(patience))
	return &h3Request{t, str, quicvarint.NewReader(str)}
}

func (r *h3Request) say(parts ...string) {
	r.t.Helper()
	if _, err := io.WriteString(r, strings.Join(parts, "")); err != nil {
		r.t.Fatal(err)
	}
}

// end ends the sending side, after these bytes.
func (r *h3Request) end(parts ...string) {
	r.t.Helper()
	r.say(parts...)
	_ = r.Close()
}

type h3Answer struct {
	status   int
	interim  []int
	fields   []qpack.HeaderField
	body     string
	trailers []qpack.HeaderField
}

func (a *h3Answer) get(name string) string {
	for _, f := range a.fields {
		if f.Name == name {
			return f.Value
		}
	}
	return ""
}

// hear reads the response to its end.
func (r *h3Request) hear() (a h3Answer, err error) {
	for {
		kind, payload, err := r.frame()
		if err == io.EOF {
			return a, nil
		}
		if err != nil {
			return a, err
		}
		if kind == 0 {
			a.body += string(payload)
			continue
		}
		if kind != 1 {
			return a, fmt.Errorf("a frame of type %d", kind)
		}
		fields, err := h3Fields(payload)
		switch {
		case err != nil:
			return a, err
		case a.status >= 200:
			a.trailers = fields
			continue
		}
		a.status, err = strconv.Atoi(fields[0].Value)
		if err != nil || fields[0].Name != ":status" {
			return a, fmt.Errorf("the first field is %v", fields[0])
		}
		a.fields = fields[1:]
		if a.status < 200 {
			a.interim = append(a.interim, a.status)
		}
	}
}

func (r *h3Request) frame() (kind uint64, payload []byte, err error) {
	if kind, err = quicvarint.Read(r.in); err != nil {
		return 0, nil, err
	}
	size, err := quicvarint.Read(r.in)
	if err == nil {
		payload = make([]byte, size)
		_, err = io.ReadFull(r.in, payload)
	}
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return kind, payload, err
}

func h3Fields(block []byte) (fields []qpack.HeaderField, err error) {
	next := qpack.NewDecoder().Decode(block)
	for {
		f, err := next()
		if err == io.EOF {
			return fields, nil
		}
		if err != nil {
			return nil, err
		}
		fields = append(fields, f)
	}
}

// mustHear fails the test unless the response is whole.
func (r *h3Request) mustHear() h3Answer {
	r.t.Helper()
	a, err := r.hear()
	if err != nil {
		r.t.Fatalf("%v after %+.200v", err, a)
	}
	return a
}

func h3Data(text string) string { return string(h3Frame(0, []byte(text))) }

func h3Headers(t testing.TB, pairs ...string) string {
	t.Helper()
	var block bytes.Buffer
	enc := qpack.NewEncoder(&block)
	for i := 0; i < len(pairs); i += 2 {
		if err := enc.WriteField(qpack.HeaderField{Name: pairs[i], Value: pairs[i+1]}); err != nil {
			t.Fatal(err)
		}
	}
	return string(h3Frame(1, block.Bytes()))
}

// h3Get returns a HEADERS frame of a request with more fields.
func h3Get(t testing.TB, method string, more ...string) string {
	return h3Headers(t, append([]string{":method", method, ":scheme", "https", ":authority", "x.test", ":path", "/a?b"}, more...)...)
}

// h3Code returns the code that a stream or connection was ended with, and whether it was the connection.
func h3Code(err error) (code h3.Code, connection bool) {
	if e, ok := errors.AsType[*quic.StreamError](err); ok && e.Remote {
		return h3.Code(e.ErrorCode), false
	}
	if e, ok := errors.AsType[*quic.ApplicationError](err); ok && e.Remote {
		return h3.Code(e.ErrorCode), true
	}
	return 0, false
}

// h3WantEnd waits for the server to end the connection with a code.
func h3WantEnd(t testing.TB, conn *quic.Conn, want h3.Code) {
	t.Helper()
	select {
	case <-conn.Context().Done():
	case <-time.After(patience):
		t.Fatalf("the connection lives on; want %v", want)
	}
	if code, connection := h3Code(context.Cause(conn.Context())); code != want || !connection {
		t.Errorf("got %v, want %v", context.Cause(conn.Context()), want)
	}
}

func h3Client(t testing.TB) *http.Client {
	transport := &http3.Transport{TLSClientConfig: h3TLS()}
	t.Cleanup(func() { _ = transport.Close() })
	return &http.Client{Transport: transport, Timeout: patience}
}

// TestH3Requests has quic-go's client send requests and the handler say what it got.
func TestH3Requests(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo)})
	client := h3Client(t)
	long := strings.Repeat("0123456789abcdef", 64<<10)
	for name, tc := range map[string]struct {
		method string
		body   io.Reader
		head   http.Header
		want   string
	}{
		"get":       {"GET", nil, nil, "GET /a?b x.test HTTP/3\n0:"},
		"fields":    {"GET", nil, http.Header{"X-Probe": {"one", "two"}}, "GET /a?b x.test HTTP/3\nx-probe=one\nx-probe=two\n0:"},
		"post":      {"POST", strings.NewReader("hello"), nil, "POST /a?b x.test HTTP/3\ncontent-length=5\n5:hello"},
		"empty":     {"POST", http.NoBody, nil, "POST /a?b x.test HTTP/3\ncontent-length=0\n0:"},
		"unsized":   {"POST", io.MultiReader(strings.NewReader("hello")), nil, "POST /a?b x.test HTTP/3\n-1:hello"},
		"large":     {"PUT", strings.NewReader(long), nil, "PUT /a?b x.test HTTP/3\ncontent-length=1048576\n1048576:" + long},
		"long head": {"GET", nil, http.Header{"X-Long": {long[:50_000]}}, "GET /a?b x.test HTTP/3\nx-long=" + long[:50_000] + "\n0:"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			req, err := http.NewRequest(tc.method, "https://"+h.address+"/a?b", tc.body)
			if err != nil {
				t.Fatal(err)
			}
			req.Host = "x.test"
			req.Header = http.Header{"User-Agent": nil, "Accept-Encoding": {"identity"}}
			for name, values := range tc.head {
				req.Header[name] = values
			}
			resp, err := client.Do(req)
			if err != nil {
				t.Fatal(err)
			}
			body, err := io.ReadAll(resp.Body)
			got := strings.Replace(string(body), "accept-encoding=identity\n", "", 1)
			if err != nil || resp.StatusCode != 200 || got != tc.want {
				t.Errorf("got %d %.200q, %v, want %.200q", resp.StatusCode, got, err, tc.want)
			}
			if resp.Header.Get("X-From") != "handler" || resp.Header.Get("Date") == "" || resp.ContentLength != int64(len(body)) {
				t.Errorf("got %v", resp.Header)
			}
		})
	}
}

// TestH3Trailers sends trailers both ways, and interim responses back.
func TestH3Trailers(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		_, err := io.Copy(io.Discard, x.ReqBody)
		trailers := x.ReqBody.Trailers()
		_ = w.Inform(103, exchange.Fields{{Name: "Link", Value: "</x>"}})
		x.Resp.Status = 200
		_ = w.Respond(&x.Resp, -1)
		_, _ = io.WriteString(w, fmt.Sprint(err))
		_ = w.Finish(trailers)
	})})
	var early string
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{Got1xxResponse: func(code int, header textproto.MIMEHeader) error {
		early = strconv.Itoa(code) + header.Get("Link")
		return nil
	}})
	req, err := http.NewRequestWithContext(ctx, "POST", "https://"+h.address+"/", io.MultiReader(strings.NewReader("body")))
	if err != nil {
		t.Fatal(err)
	}
	req.Trailer = http.Header{"X-Sum": {"12"}}
	resp, err := h3Client(t).Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, err := io.ReadAll(resp.Body)
	if string(body) != "<nil>" || err != nil || early != "103</x>" || resp.Trailer.Get("X-Sum") != "12" {
		t.Errorf("got %q, %v, interim %q, trailers %v", body, err, early, resp.Trailer)
	}
}

// TestH3Responses holds the framing of every kind of response.
func TestH3Responses(t *testing.T) {
	t.Parallel()
	big := strings.Repeat("x", 10_000)
	for name, tc := range map[string]struct {
		method   string
		handler  serve
		status   int
		body     string
		length   string
		trailers int
	}{
		"sized":              {"GET", respond(200, true, []string{"hello"}, nil), 200, "hello", "5", 0},
		"sized, parts":       {"GET", respond(200, true, []string{big, "a", big, big, "b"}, nil), 200, big + "a" + big + big + "b", "30002", 0},
		"sized, trailers":    {"GET", respond(200, true, []string{"hello"}, exchange.Fields{{Name: "X-A", Value: "1"}}), 200, "hello", "5", 1},
		"unsized":            {"GET", respond(200, false, []string{"hel", "", "lo"}, nil), 200, "hello", "", 0},
		"unsized, large":     {"GET", respond(200, false, []string{big, "a", big, big}, nil), 200, big + "a" + big + big, "", 0},
		"unsized, trailers":  {"GET", respond(200, false, []string{big}, exchange.Fields{{Name: "x-a", Value: "1"}, {Name: "x-b", Value: "2"}}), 200, big, "", 2},
		"only trailers":      {"GET", respond(200, false, nil, exchange.Fields{{Name: "grpc-status", Value: "0"}}), 200, "", "", 1},
		"nothing":            {"GET", respond(200, true, nil, nil), 200, "", "0", 0},
		"head":               {"HEAD", respond(200, true, []string{"hello"}, nil), 200, "", "5", 0},
		"head, unsized":      {"HEAD", respond(200, false, []string{"hello"}, nil), 200, "", "", 0},
		"no content":         {"GET", respond(204, true, nil, nil), 204, "", "", 0},
		"not modified":       {"GET", respond(304, false, nil, nil), 304, "", "", 0},
		"odd status":         {"GET", respond(599, true, []string{"x"}, nil), 599, "x", "1", 0},
		"many small writes":  {"GET", respond(200, false, slicesOf("ab", 4000), nil), 200, strings.Repeat("ab", 4000), "", 0},
		"many sized writes":  {"GET", respond(200, true, slicesOf("ab", 4000), nil), 200, strings.Repeat("ab", 4000), "8000", 0},
		"just over a buffer": {"GET", respond(200, false, []string{big[:h3WriteBuffer-8], "tail"}, nil), 200, big[:h3WriteBuffer-8] + "tail", "", 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := build(t, houseOptions{secure: true, handler: tc.handler})
			conn := h3Dial(t, h.address)
			for range 2 {
				r := h3Open(t, conn)
				r.end(h3Get(t, tc.method))
				a := r.mustHear()
				if a.status != tc.status || a.body != tc.body || a.get("content-length") != tc.length || len(a.trailers) != tc.trailers || a.get("date") == "" {
					t.Errorf("got %.300v", a)
				}
			}
		})
	}
}

func slicesOf(text string, n int) (list []string) {
	for range n {
		list = append(list, text)
	}
	return list
}

// TestH3Bodies holds what the handler learns of a request's body.
func TestH3Bodies(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, limits: Limits{MaxBodyBytes: 1000, MaxHeaderBytes: 8 << 10, MaxHeaderCount: 20}, handler: serve(echo)})
	conn := h3Dial(t, h.address)
	long := strings.Repeat("x", 1001)
	grease := string(h3Frame(0x21+0x1f*9, []byte("grease")))
	for name, tc := range map[string]struct {
		stream string
		status int
		body   string // of the response, behind its last line feed
	}{
		"none":                          {h3Get(t, "GET"), 200, "0:"},
		"none, grease":                  {grease + h3Get(t, "GET") + grease, 200, "-1:"},
		"get with a body":               {h3Get(t, "GET") + h3Data("x"), 200, "-1:x"},
		"post without":                  {h3Get(t, "POST"), 200, "0:"},
		"unsized":                       {h3Get(t, "POST") + h3Data("hel") + h3Data("lo"), 200, "-1:hello"},
		"sized":                         {h3Get(t, "POST", "content-length", "5") + h3Data("hello"), 200, "5:hello"},
		"sized, zero":                   {h3Get(t, "POST", "content-length", "0"), 200, "0:"},
		"trailers":                      {h3Get(t, "POST") + h3Data("hello") + h3Headers(t, "x-a", "1"), 200, "x-a=1"},
		"at the limit":                  {h3Get(t, "POST") + h3Data(long[1:]), 200, "-1:" + long[1:]},
		"over the limit":                {h3Get(t, "POST") + h3Data(long), 413, "body_too_large"},
		"over the limit, told":          {h3Get(t, "POST", "content-length", "1001") + h3Data(long), 413, "body_too_large"},
		"lone end after content-length": {h3Get(t, "POST", "content-length", "5"), 400, "bad_request"},
		"too short":                     {h3Get(t, "POST", "content-length", "5") + h3Data("hell"), 400, "bad_request"},
		"too long":                      {h3Get(t, "POST", "content-length", "5") + h3Data("hello!"), 400, "bad_request"},
		"malformed trailers":            {h3Get(t, "POST") + h3Data("x") + h3Headers(t, ":path", "/"), 400, "bad_request"},
		"trailers over the limit":       {h3Get(t, "POST") + h3Data("x") + h3Headers(t, "x-a", strings.Repeat("a", 9<<10)), 431, "fields_too_large"},
		"head over the limit":           {h3Get(t, "GET", "x-a", strings.Repeat("a", 9<<10)), 431, "fields_too_large"},
		"fields over the limit":         {h3Get(t, "GET", strings.Split(strings.Repeat("x-a,1,", 20)+"x,1", ",")...), 431, "fields_too_large"},
		"head bomb":                     {string(h3Frame(1, append([]byte("\x00\x00\xd1\xd7\x50\x06x.test\xc1"), bytes.Repeat([]byte{0xff, 85 - 63}, 4000)...))), 431, "fields_too_large"},
		"bad path":                      {h3Headers(t, ":method", "GET", ":scheme", "https", ":authority", "x.test", ":path", "/a b"), 400, "bad_request"},
		"two authorities":               {h3Get(t, "GET", "host", "y.test"), 400, "bad_request"},
		"upper case":                    {h3Get(t, "GET", "X-A", "1"), 400, "bad_request"},
		"connection":                    {h3Get(t, "GET", "connection", "close"), 400, "bad_request"},
	} {
		t.Run(name, func(t *testing.T) {
			r := h3Open(t, conn)
			r.end(tc.stream)
			a, err := r.hear()
			got := a.body[strings.LastIndexByte(a.body, '\n')+1:]
			if err != nil || a.status != tc.status || got != tc.body && !(tc.body == "0:" && got == "-1:") {
				t.Errorf("got %d %.100q, %v, want %d %.100q", a.status, got, err, tc.status, tc.body)
			}
		})
	}
}

// TestH3GetHasNoBody has the end of a request come late, at once, and never.
func TestH3GetHasNoBody(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		n, whole := 0, false
		if ready, ok := x.ReqBody.(exchange.Ready); ok {
			n, whole = ready.Ready()
		}
		reply(w, 200, fmt.Sprint(x.ReqBody.Length(), n, whole))
	})})
	conn := h3Dial(t, h.address)
	for name, tc := range map[string]struct {
		method string
		later  []string // what comes some time after the head
		end    bool
		want   string
	}{
		"end at once":     {"GET", nil, true, "0 0 true"},
		"end late":        {"GET", []string{""}, true, "0 0 true"},
		"body late":       {"DELETE", []string{h3Data("hello")}, true, "-1 5 true"},
		"no end":          {"GET", nil, false, "-1 0 false"},
		"post, no end":    {"POST", nil, false, "-1 0 false"},
		"body, no end":    {"GET", []string{h3Data("hello")}, false, "-1 5 false"},
		"empty data, end": {"GET", []string{h3Data("")}, true, "-1 0 false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := h3Open(t, conn)
			r.say(h3Get(t, tc.method))
			for _, text := range tc.later {
				r.settle(conn)
				r.say(text)
			}
			if tc.end {
				_ = r.Close()
			}
			a := r.mustHear()
			// The end may be in the packet after the body's.
			if a.body != tc.want && a.body != strings.Replace(tc.want, "5 true", "5 false", 1) {
				t.Errorf("got %q, want %q", a.body, tc.want)
			}
		})
	}
}

// settle waits until what was written has left: another request and its answer take as long.
func (r *h3Request) settle(conn *quic.Conn) {
	other := h3Open(r.t, conn)
	other.end(h3Get(r.t, "GET"))
	other.mustHear()
}

func TestH3Continue(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(echo)})
	conn := h3Dial(t, h.address)
	t.Run("asked", func(t *testing.T) {
		r := h3Open(t, conn)
		r.say(h3Get(t, "POST", "expect", "100-continue"))
		kind, payload, err := r.frame()
		if err != nil || kind != 1 {
			t.Fatal(kind, err)
		}
		if fields, err := h3Fields(payload); err != nil || len(fields) != 1 || fields[0].Value != "100" {
			t.Fatal(fields, err)
		}
		r.end(h3Data("hello"))
		if a := r.mustHear(); a.status != 200 || !strings.HasSuffix(a.body, "-1:hello") {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("not waited for", func(t *testing.T) {
		r := h3Open(t, conn)
		r.end(h3Get(t, "POST", "expect", "100-continue", "content-length", "5"), h3Data("hello"))
		if a := r.mustHear(); a.status != 200 || len(a.interim) > 1 {
			t.Errorf("got %+v", a)
		}
	})
	t.Run("refused", func(t *testing.T) {
		h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) { reply(w, 403, "no") })})
		r := h3Open(t, h3Dial(t, h.address))
		r.say(h3Get(t, "POST", "expect", "100-continue"))
		if a := r.mustHear(); a.status != 403 || len(a.interim) > 0 {
			t.Errorf("got %+v", a)
		}
	})
}

// TestH3EarlyResponse answers before the body is there: the client is asked to stop, without an error.
func TestH3EarlyResponse(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, handler: serve(func(_ *exchange.Exchange, w exchange.Responder) { reply(w, 200, "early") })})
	r := h3Open(t, h3Dial(t, h.address))
	r.say(h3Get(t, "POST", "content-length", "1000000"), h3Data(strings.Repeat("x", 1000)))
	if a := r.mustHear(); a.status != 200 || a.body != "early" {
		t.Errorf("got %+v", a)
	}
	<-r.Context().Done()
	if code, _ := h3Code(context.Cause(r.Context())); code != h3.NoError {
		t.Errorf("the client was stopped with %v", context.Cause(r.Context()))
	}
}

func TestH3Peer(t *testing.T) {
	t.Parallel()
	peers := make(chan exchange.Peer, 1)
	h := build(t, houseOptions{secure: true, handler: serve(func(x *exchange.Exchange, w exchange.Responder) {
		peers <- x.Peer
		reply(w, 200, x.Req.Scheme)
	})})
	conn := h3Dial(t, h.address)
	r := h3Open(t, conn)
	r.end(h3Headers(t, ":method", "GET", ":scheme", "http", ":authority", "x.test", ":path", "/"))
	if a := r.mustHear(); a.body != "https" {
		t.Errorf("the scheme is %q", a.body)
	}
	got := <-peers
	if got.Bind != h.bind.Key() || got.Local.String() != h.address || got.Remote != addrPort(conn.LocalAddr()) && got.Remote.Port() != addrPort(conn.LocalAddr()).Port() ||
		got.RemoteIP != "127.0.0.1" || got.Proto != exchange.HTTP3 || got.TLS == nil || got.TLS.ServerName != "x.test" || got.TLS.Version != tls.VersionTLS13 {
		t.Errorf("got %+v", got)
	}
	if n := h.count(exchange.HTTP3); n != 1 {
		t.Errorf("%d connections are counted", n)
	}
	_ = conn.CloseWithError(0x100, "")
	h3Eventually(t, "the connection is counted on", func() bool { return h.count(exchange.HTTP3) == 0 })
}

// h3Eventually waits for what happens in its own time and tells nobody.
func h3Eventually(t testing.TB, complaint string, holds func() bool) {
	t.Helper()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	deadline := time.After(patience)
	for !holds() {
		select {
		case <-tick.C:
		case <-deadline:
			t.Fatal(complaint)
		}
	}
}

// TestH3Concurrent has many requests at work on one connection, and streams used again.
func TestH3Concurrent(t *testing.T) {
	t.Parallel()
	h := build(t, houseOptions{secure: true, limits: Limits{MaxStreams: 20}, handler: serve(echo)})
	conn := h3Dial(t, h.address)
	var all sync.WaitGroup
	for i := range 30 {
		all.Go(func() {
			for j := range 10 {
				body := fmt.Sprintf("%d %d %s", i, j, strings.Repeat("x", 1000*j))
				r := h3Open(t, conn)
				r.end(h3Get(t, "POST", "x-number", strconv.Itoa(i)), h3Data(body))
				a, err := r.hear()
				if want := fmt.Sprintf("POST /a?b x.test HTTP/3\nx-number=%d\n-1:%s", i, body); err != nil || a.body != want {
					t.Errorf("got %.100q, %v, want %.100q", a.body, err, want)
				}
			}
		})
	}
	all.Wait()
}
