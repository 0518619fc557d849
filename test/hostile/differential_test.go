package hostile

import (
	"fmt"
	"maps"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/test/harness"
)

// The same hostile bytes go to the gateway, to nginx and to HAProxy, each in front of a recording origin of its own. What both of them
// refuse the gateway must not forward: their parsers have met more attackers than any table of ours.
//
//	corpus -> gateway  -> recorder: GET "", POST "hello"
//	       -> nginx    -> recorder: GET ""
//	       -> haproxy  -> recorder: GET "", POST "hello", GET ""    fine: one of them forwards what the gateway does
//
// A case in which the gateway forwards nothing needs no comparison, and the gateway forwards few: the peers are asked about those alone.

// mutations puts each byte that a parser may stumble over in each place of a request where it may.
func mutations() map[string]string {
	odd := map[string]string{
		"NUL": "\x00", "SOH": "\x01", "HTAB": "\t", "LF": "\n", "VT": "\x0b", "FF": "\x0c", "CR": "\r", "SP": " ", "DEL": "\x7f",
		"0x80": "\x80",
		"0xa0": "\xa0", "0xff": "\xff", "comma": ",", "semicolon": ";", "colon": ":", "quote": "\"", "backslash": "\\", "slash": "/",
		"hash":    "#",
		"percent": "%", "plus": "+", "minus": "-", "zero": "0", "underscore": "_", "CRLF": "\r\n", "CRLF SP": "\r\n ",
		"CRLF HTAB": "\r\n\t", "LF SP": "\n ", "CR CR LF": "\r\r\n",
	}
	const host = "Host: app.example.test\r\n"
	places := map[string]string{ // ^ is where it goes
		"before the method":    "^GET / HTTP/1.1\r\n" + host + "\r\n",
		"in the method":        "GE^T / HTTP/1.1\r\n" + host + "\r\n",
		"after the method":     "GET^ / HTTP/1.1\r\n" + host + "\r\n",
		"before the target":    "GET ^/ HTTP/1.1\r\n" + host + "\r\n",
		"in the target":        "GET /a^b HTTP/1.1\r\n" + host + "\r\n",
		"in the query":         "GET /a?b^c HTTP/1.1\r\n" + host + "\r\n",
		"in an absolute form":  "GET http://app.example.test^/ HTTP/1.1\r\n" + host + "\r\n",
		"before the version":   "GET / ^HTTP/1.1\r\n" + host + "\r\n",
		"in the version":       "GET / HTTP/1^.1\r\n" + host + "\r\n",
		"after the version":    "GET / HTTP/1.1^\r\n" + host + "\r\n",
		"before a name":        "GET / HTTP/1.1\r\n" + host + "^X-A: b\r\n\r\n",
		"in a name":            "GET / HTTP/1.1\r\n" + host + "X^A: b\r\n\r\n",
		"before the colon":     "GET / HTTP/1.1\r\n" + host + "X-A^: b\r\n\r\n",
		"after the colon":      "GET / HTTP/1.1\r\n" + host + "X-A:^b\r\n\r\n",
		"in a value":           "GET / HTTP/1.1\r\n" + host + "X-A: b^c\r\n\r\n",
		"before the host":      "GET / HTTP/1.1\r\nHost:^app.example.test\r\n\r\n",
		"in the host":          "GET / HTTP/1.1\r\nHost: app.exam^ple.test\r\n\r\n",
		"after the host":       "GET / HTTP/1.1\r\nHost: app.example.test^\r\n\r\n",
		"in the host's name":   "GET / HTTP/1.1\r\nHo^st: app.example.test\r\n\r\n",
		"before the end":       "GET / HTTP/1.1\r\n" + host + "X-A: b\r\n^\r\n",
		"in the length":        "POST / HTTP/1.1\r\n" + host + "Content-Length: 1^0\r\n\r\n0123456789",
		"before the length":    "POST / HTTP/1.1\r\n" + host + "Content-Length:^10\r\n\r\n0123456789",
		"after the length":     "POST / HTTP/1.1\r\n" + host + "Content-Length: 10^\r\n\r\n0123456789",
		"in the length's name": "POST / HTTP/1.1\r\n" + host + "Content^-Length: 10\r\n\r\n0123456789",
		"before chunked":       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: ^chunked\r\n\r\n0\r\n\r\n",
		"in chunked":           "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chu^nked\r\n\r\n0\r\n\r\n",
		"after chunked":        "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked^\r\n\r\n0\r\n\r\n",
		"in the coding's name": "POST / HTTP/1.1\r\n" + host + "Transfer^-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"before a chunk":       "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n^5\r\nhello\r\n0\r\n\r\n",
		"after a chunk's size": "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5^\r\nhello\r\n0\r\n\r\n",
		"in an extension":      "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5;a^b\r\nhello\r\n0\r\n\r\n",
		"after a chunk":        "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello^\r\n0\r\n\r\n",
		"in the last chunk":    "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0^\r\n\r\n",
		"in a trailer's name":  "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX^T: a\r\n\r\n",
		"in a trailer":         "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: a^b\r\n\r\n",
		"after the trailers":   "POST / HTTP/1.1\r\n" + host + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\nX-T: a\r\n^\r\n",
		"between two requests": "GET /a HTTP/1.1\r\n" + host + "\r\n^GET /b HTTP/1.1\r\n" + host + "\r\n",
		"after a body":         "POST / HTTP/1.1\r\n" + host + "Content-Length: 5\r\n\r\nhello^GET /b HTTP/1.1\r\n" + host + "\r\n",
		"in a list of options": "GET / HTTP/1.1\r\n" + host + "Connection: keep^-alive\r\n\r\n",
		"in an expectation":    "POST / HTTP/1.1\r\n" + host + "Expect: 100^-continue\r\nContent-Length: 5\r\n\r\nhello",
	}
	cases := map[string]string{}
	for where, request := range places {
		for what, bytes := range odd {
			cases[what+" "+where] = strings.Replace(request, "^", bytes, 1)
		}
	}
	return cases
}

// pairs puts two framings into one request, each in several spellings: what a parser ignores of one decides how it takes the other.
func pairs() map[string]string {
	lengths := []string{
		"Content-Length: 5", "Content-Length: 0", "Content-Length: 44", "Content-Length: +5", "content-length:5", "Content-Length : 5",
		"Content-Length:\t5", " Content-Length: 5",
		"Content_Length: 5", "Content-Length: 5, 5", "X: a\nContent-Length: 5", "X: a\rContent-Length: 5", "Content-Length: 0x5",
		"Content-Length\x00: 5", "Connection: Content-Length",
	}
	codings := []string{
		"Transfer-Encoding: chunked", "Transfer-Encoding: Chunked", "transfer-encoding:chunked", "Transfer-Encoding : chunked",
		" Transfer-Encoding: chunked", "Transfer-Encoding: x",
		"Transfer-Encoding: identity", "Transfer-Encoding: chunked, identity", "Transfer-Encoding:\r\n chunked",
		"Transfer-Encoding: \x0bchunked", "Transfer_Encoding: chunked",
		"X: a\nTransfer-Encoding: chunked", "X: a\rTransfer-Encoding: chunked", "Transfer-Encoding: chunked\x00",
		"Transfer-Encoding\x00: chunked", "Connection: Transfer-Encoding",
		"Content-Length: 5",
	}
	cases := map[string]string{}
	for _, length := range lengths {
		for _, coding := range codings {
			for _, version := range []string{"1.1", "1.0"} {
				head := "POST / HTTP/" + version + "\r\nHost: app.example.test\r\n"
				body := "\r\n\r\n0\r\n\r\n" + smuggled
				cases[fmt.Sprintf("%q and %q in %s", length, coding, version)] = head + length + "\r\n" + coding + body
				cases[fmt.Sprintf("%q and %q in %s", coding, length, version)] = head + coding + "\r\n" + length + body
			}
		}
	}
	return cases
}

// corpus is every hostile request by name.
func corpus() map[string]string {
	all := mutations()
	maps.Copy(all, pairs())
	for name, a := range attacks() {
		all[name] = a.raw
	}
	return all
}

// TestDifferential takes the whole corpus to all three.
func TestDifferential(t *testing.T) {
	for _, p := range peers() {
		if p.path() == "" {
			t.Skipf("%s is not installed", p.name)
		}
	}
	cases := corpus()
	ours := forwardedHere(t, slices.Sorted(maps.Keys(cases)), cases)
	if len(ours) < 20 {
		t.Errorf("of %d requests the gateway forwards %d: what is right in the corpus must pass, or nothing is compared", len(cases), len(ours))
	}
	names := slices.Sorted(maps.Keys(ours))
	theirs := make([]map[string][]string, len(peers()))
	for i, p := range peers() {
		theirs[i] = p.forwarded(t, names, cases)
	}
	for _, name := range names {
		var requests []string
		for _, m := range ours[name] {
			method, _, _ := strings.Cut(m.line, " ")
			requests = append(requests, method+" "+m.body)
		}
		alike := func(peer map[string][]string) bool {
			return len(peer[name]) >= len(requests) && slices.Equal(peer[name][:len(requests)], requests)
		}
		if !slices.ContainsFunc(theirs, alike) {
			t.Errorf("%s: of %.300q the gateway forwards %.300q; nginx %.300q and haproxy %.300q", name, cases[name], requests, theirs[0][name], theirs[1][name])
		}
	}
	t.Logf("of %d requests the gateway forwards %d", len(cases), len(names))
}

// atOnce calls f for each number below n, on several goroutines.
func atOnce(n int, f func(int)) {
	next := make(chan int)
	var workers sync.WaitGroup
	for range 64 {
		workers.Go(func() {
			for i := range next {
				f(i)
			}
		})
	}
	for i := range n {
		next <- i
	}
	close(next)
	workers.Wait()
}

// forwardedHere returns what the gateway forwards of each request, those of which nothing is forwarded left out.
func forwardedHere(t *testing.T, names []string, cases map[string]string) map[string][]message {
	t.Helper()
	const lanes = 96 // one gateway each; a lane takes its requests one after another
	origins := make([]*harness.Recorder, lanes)
	addresses := make([]string, lanes)
	for i := range lanes {
		// An origin that closes gives each request a connection of its own, which tells them apart.
		b := newBed(t, harness.H1, answerAndClose, limited(func(l *downstream.Limits) { l.IdleTimeout = 500 * time.Millisecond }))
		origins[i], addresses[i] = b.origin, b.Address()
	}
	seen := make([]map[string][]message, lanes)
	var running sync.WaitGroup
	for i := range lanes {
		seen[i] = map[string][]message{}
		running.Go(func() {
			for at := i; at < len(names); at += lanes {
				name := names[at]
				before := len(origins[i].Conns())
				answer := ""
				for tries := 0; answer == "" && tries < 3; tries++ { // a busy machine may be slower to send than the gateway to hang up
					conn, err := net.Dial("tcp", addresses[i])
					if err != nil {
						t.Error(err)
						return
					}
					answer = exchanged(conn, cases[name])
				}
				for _, c := range origins[i].Conns()[before:] {
					found, err := messages(c.Bytes())
					if err != nil && err != errCut {
						t.Errorf("%s: of %q the gateway forwards %q: %v", name, cases[name], c.Bytes(), err)
					}
					if len(found) > 0 {
						seen[i][name] = append(seen[i][name], found...)
					}
				}
				if answer == "" {
					t.Errorf("%s: the gateway ends the connection without a word to %q", name, cases[name])
				}
			}
		})
	}
	running.Wait()
	all := map[string][]message{}
	for _, some := range seen {
		maps.Copy(all, some)
	}
	return all
}

// answerAndClose answers one request.
func answerAndClose(c *harness.RecordedConn) {
	head, err := c.ReadHead()
	if err != nil {
		return
	}
	if _, err := c.ReadBody(head); err == nil {
		c.Answer("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok")
	}
}

// forwarded returns method and body of what the peer forwards of each request.
func (p *peer) forwarded(t *testing.T, names []string, cases map[string]string) map[string][]string {
	t.Helper()
	var backs []string
	var origins []*harness.Recorder
	for range names {
		origin := harness.NewRecorder(t, answerAndClose)
		origins = append(origins, origin)
		backs = append(backs, origin.Addr.String())
	}
	dir := p.start(t, backs)
	atOnce(len(names), func(i int) {
		conn, err := net.Dial("unix", p.socket(dir, i))
		if err != nil {
			t.Errorf("%s: %v", p.name, err)
			return
		}
		exchanged(conn, cases[names[i]])
	})
	all := map[string][]string{}
	for i, name := range names {
		for _, c := range origins[i].Conns() {
			all[name] = append(all[name], requestsOf(c.Bytes())...)
		}
	}
	return all
}

// requestsOf takes apart what a peer forwarded, whose way of writing heads is not ours to judge.
func requestsOf(recorded string) (all []string) {
	for {
		head, rest, ok := strings.Cut(recorded, "\r\n\r\n")
		if !ok {
			return all
		}
		body, low := "", strings.ToLower(head)
		if strings.Contains(low, "\r\ntransfer-encoding:") {
			var err error
			if body, _, rest, err = chunks(rest); err != nil {
				return all
			}
		} else if _, value, ok := strings.Cut(low, "\r\ncontent-length:"); ok {
			value, _, _ = strings.Cut(value, "\r\n")
			length, err := strconv.Atoi(strings.TrimSpace(value))
			if err != nil || len(rest) < length {
				return all
			}
			body, rest = rest[:length], rest[length:]
		}
		method, _, _ := strings.Cut(head, " ")
		all = append(all, method+" "+body)
		recorded = rest
	}
}
