package h1

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// received is a message as it was read: everything in memory of its own.
type received struct {
	head     exchange.Head
	resp     exchange.Response
	m        Message
	body     []byte
	trailers exchange.Fields
	rest     string // what was not read
}

// receive reads the first message of raw; false when it is refused or cut.
func receive(raw, method string) (*received, bool) {
	var r Reader
	src := &pieces{rest: raw}
	r.Init(src, nil, Limits{})
	defer r.Release()
	msg := &received{}
	var err error
	if method == "" {
		err = r.ReadRequest(&msg.head, &msg.m)
	} else {
		err = r.ReadResponse(&msg.resp, &msg.m, method)
	}
	if err != nil {
		return nil, false
	}
	if msg.body, err = io.ReadAll(&r); err != nil {
		return nil, false
	}
	msg.head = msg.head.Clone()
	head := exchange.Head{Fields: msg.resp.Fields}
	msg.resp.Fields = head.Clone().Fields
	head.Fields = r.Trailers()
	msg.trailers = head.Clone().Fields
	msg.rest = string(r.Buffered()) + src.rest
	return msg, true
}

// sendBody appends a body in the message's framing.
func (msg *received) sendBody(dst []byte) []byte {
	if msg.m.Length != Chunked {
		return append(dst, msg.body...)
	}
	return AppendLastChunk(AppendChunk(dst, msg.body), msg.trailers)
}

func addHeads(f *testing.F, raw ...string) {
	for _, s := range raw {
		f.Add([]byte(s), uint16(len(s)/2))
	}
}

// sameInPieces holds that the way bytes arrive changes nothing.
func sameInPieces(t *testing.T, raw string, cut uint16, s script) {
	t.Helper()
	s.limits = Limits{Bytes: 20_000, Fields: 50}
	s.small = 512
	want := transcript(t, &pieces{rest: raw}, s)
	for _, sizes := range [][]int{{int(cut)%(len(raw)+1) + 1, len(raw) + 1}, {int(cut)%7 + 1}} {
		for _, small := range []int{0, 16} {
			s.small, s.read = small, int(cut)%50
			if got := transcript(t, &pieces{rest: raw, sizes: sizes}, s); got != want {
				t.Errorf("in pieces of %v: got\n%s\nwhole:\n%s", sizes, got, want)
			}
		}
	}
}

// FuzzRequest holds three things: that a request is read the same however its bytes arrive; that what is written of it is read as the same
// request, with nothing left over; and that net/http, where the gateway lets a request pass, finds the same request.
func FuzzRequest(f *testing.F) {
	addHeads(f, browser, get+"\r\n"+get+"\r\n", "\r\n"+post+"Content-Length: 5\r\n\r\nhello"+smuggled,
		post+"Transfer-Encoding: chunked\r\nTrailer: X-Sum\r\n\r\n5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"+smuggled,
		"GET http://app.example.test:80?x HTTP/1.1\r\nHost: app.example.test\r\n\r\n", "GET http://a/b HTTP/1.0\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a\r\n\r\n",
		get+"Connection: upgrade, close\r\nUpgrade: WebSocket\r\nTE: trailers\r\nCookie: a\r\nX-\xff: \xff\t\r\ncookie: b\r\nExpect: 100-continue\r\n\r\n",
		post+"Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", get+"X: 1\r\n folded\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
		"GET /\r\n\r\n")
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		raw := string(data)
		sameInPieces(t, raw, cut, script{})
		msg, ok := receive(raw, "")
		if !ok {
			return
		}
		readAsNetHTTP(t, raw, msg)
		if msg.head.Normalize() != nil || msg.head.Authority == "" {
			return // not for AppendRequest
		}
		sent := msg.sendBody(AppendRequest(nil, &msg.head, &msg.m, msg.head.Protocol))
		again, ok := receive(string(sent), "")
		if !ok || again.rest != "" {
			t.Fatalf("%q was written as %q; what is left of it is %v", raw, sent, again)
		}
		h := &again.head
		if h.Method != msg.head.Method || h.Authority != msg.head.Authority || h.Target != msg.head.ForwardTarget() ||
			h.Protocol != msg.head.Protocol ||
			!bytes.Equal(again.body, msg.body) || again.m.Close != msg.m.Close || again.m.Length != msg.m.Length ||
			again.m.Continue != msg.m.Continue {
			t.Fatalf("%q was written as %q, which is %s%+v", raw, sent, showRequest(h), again.m)
		}
		if err := h.Normalize(); err != nil {
			t.Fatal(err)
		}
		if twice := again.sendBody(AppendRequest(nil, h, &again.m, h.Protocol)); !bytes.Equal(twice, sent) {
			t.Fatalf("%q was written as %q and then as %q", raw, sent, twice)
		}
	})
}

// readAsNetHTTP compares with http.ReadRequest. It refuses some that are fine here: targets that are no URL, lists of trailers that it
// does not like.
func readAsNetHTTP(t *testing.T, raw string, msg *received) {
	t.Helper()
	req, err := http.ReadRequest(bufio.NewReader(strings.NewReader(strings.TrimPrefix(raw, "\r\n"))))
	if err != nil {
		if _, bad := url.ParseRequestURI(msg.head.Target); bad == nil && !msg.head.Fields.Has(exchange.Trailer) && msg.head.Method != connect {
			t.Fatalf("net/http refuses %q: %v", raw, err)
		}
		return
	}
	host := req.Host
	if !strings.HasPrefix(req.RequestURI, "/") && exchange.CanonicalHost(host) == msg.head.Host() {
		host = msg.head.Authority // one may have the default port where the other has none
	}
	body, err := io.ReadAll(req.Body)
	if err != nil && !strings.Contains(raw, ";") || err == nil && !bytes.Equal(body, msg.body) {
		t.Fatalf("net/http finds the body %q of %q, %v; here it is %q", body, raw, err, msg.body)
	}
	if req.Method != msg.head.Method || host != msg.head.Authority || req.ContentLength != msg.m.Length || req.Close != msg.m.Close {
		t.Fatalf("net/http reads %q as %s %s %d %v; here it is %s%+v", raw, req.Method, host, req.ContentLength, req.Close,
			showRequest(&msg.head), msg.m)
	}
}

// FuzzResponse is FuzzRequest for responses, to a GET or a HEAD.
func FuzzResponse(f *testing.F) {
	addHeads(f, answer, answer+answer, ContinueResponse+"HTTP/1.1 103 Early Hints\r\nLink: a\r\n\r\n"+answer, "HTTP/1.0 200\r\n\r\nhello",
		"HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n\r\n5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n",
		"HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\nConnection: close\r\n\r\n",
		"HTTP/1.1 101 Switching Protocols\r\nUpgrade: a\r\n\r\nraw", "HTTP/1.1 200 OK\nContent-Length: 0\n\n",
		"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n")
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		raw, method := string(data), "GET"
		if cut%4 == 0 {
			method = "HEAD"
		}
		sameInPieces(t, raw, cut, script{method: method})
		msg, ok := receive(raw, method)
		if !ok {
			return
		}
		if msg.resp.Status >= 200 { // net/http leaves out the fields of interim responses that have a length
			responseAsNetHTTP(t, raw, method, msg)
		}
		msg.m.Proto = exchange.HTTP11
		sent := AppendResponse(nil, &msg.resp, &msg.m, "", "", nil)
		if !bodiless(msg.resp.Status, method) {
			sent = msg.sendBody(sent)
		}
		again, ok := receive(string(sent), method)
		if !ok || again.rest != "" {
			t.Fatalf("%q was written as %q; what is left of it is %v", raw, sent, again)
		}
		closes := msg.m.Close && msg.resp.Status >= 200
		if again.resp.Status != msg.resp.Status || !bytes.Equal(again.body, msg.body) || again.m.Close != closes ||
			again.m.Length != msg.m.Length &&
				msg.resp.Status != 304 {
			t.Fatalf("%q was written as %q, which is %s%+v", raw, sent, showResponse(&again.resp), again.m)
		}
	})
}

func responseAsNetHTTP(t *testing.T, raw, method string, msg *received) {
	t.Helper()
	resp, err := http.ReadResponse(bufio.NewReader(strings.NewReader(raw)), &http.Request{Method: method})
	if err != nil {
		if !msg.resp.Fields.Has(exchange.Trailer) {
			t.Fatalf("net/http refuses %q: %v", raw, err)
		}
		return
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil && !strings.Contains(raw, ";") || err == nil && !bytes.Equal(body, msg.body) || resp.StatusCode != msg.resp.Status {
		t.Fatalf("net/http reads %q as %d %q, %v; here it is %d %q", raw, resp.StatusCode, body, err, msg.resp.Status, msg.body)
	}
	if msg.m.Length >= 0 && method == "GET" && msg.resp.Status != 304 && resp.ContentLength != msg.m.Length {
		t.Fatalf("net/http reads %q as %d bytes; here it is %+v", raw, resp.ContentLength, msg.m)
	}
}

// FuzzChunked has chunked bodies. What is accepted is what net/http reads, written anew it is the same body, and pieces change nothing.
func FuzzChunked(f *testing.F) {
	addHeads(f, "5\r\nhello\r\n0\r\n\r\n", "5;a=\"b\"\r\nhello\r\n00A\r\n0123456789\r\n0;x\r\nX-Sum: 1\r\n\r\nrest", "5\nhello\n0\n\n",
		"-1\r\n", "0x5\r\nhello\r\n",
		"0\r\nX: 1\r\n y\r\n\r\n", "ffffffffffffffff\r\n", "7fffffffffffffff\r\nx", "1000\r\n"+strings.Repeat("x", 4096)+"\r\n0\r\n\r\n",
		"5\r\nhello!\r\n")
	f.Fuzz(func(t *testing.T, data []byte, cut uint16) {
		raw := post + "Transfer-Encoding: chunked\r\n\r\n" + string(data)
		sameInPieces(t, raw, cut, script{})
		msg, ok := receive(raw, "")
		if !ok {
			return
		}
		readAsNetHTTP(t, raw, msg)
		again, ok := receive(post+"Transfer-Encoding: chunked\r\n\r\n"+string(msg.sendBody(nil)), "")
		if !ok || !bytes.Equal(again.body, msg.body) || again.rest != "" || len(again.trailers) > len(msg.trailers) {
			t.Fatalf("%q was written as %q", data, msg.sendBody(nil))
		}
	})
}
