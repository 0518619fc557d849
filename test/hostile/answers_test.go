package hostile

import (
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/config"
	"gatehouse.dev/gatehouse/test/harness"
)

// answer is what an origin says to the one request of a case, and what must become of it.
type answer struct {
	raw string
	// closes has the origin close the connection behind raw; otherwise it goes on to answer what comes.
	closes bool
	// method is GET when empty.
	method string
	// status is what the client must get: 502 when 0.
	status int
	// body is what the client must get with it, unless the status is 502. With broken it is as much of it as may come.
	body string
	// broken says that the answer's head may pass, but the client must see that its body is not whole.
	broken bool
	// doubtful says that bytes behind the answer put it in doubt: it may pass, or not.
	doubtful bool
}

const (
	ok     = "HTTP/1.1 200 OK\r\n"
	ok5    = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
	okPart = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
	// evil is an answer that nobody asked for.
	evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
)

// answerHeads are hostile in their heads.
func answerHeads() map[string]answer {
	cases := map[string]answer{
		"length and chunked":        {raw: ok + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + evil},
		"chunked and length":        {raw: ok + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + evil},
		"chunked in HTTP/1.0":       {raw: "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", closes: true},
		"two lengths":               {raw: ok + "Content-Length: 5\r\nContent-Length: 0\r\n\r\nhello"},
		"bare LF":                   {raw: "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello"},
		"bare LF in fields":         {raw: ok + "X-A: b\nX-B: c\r\nContent-Length: 5\r\n\r\nhello"},
		"bare CR in a value":        {raw: ok + "X-A: b\rX-B: c\r\nContent-Length: 5\r\n\r\nhello"},
		"folded":                    {raw: ok + "X-A: b\r\n c\r\nContent-Length: 5\r\n\r\nhello"},
		"folded framing":            {raw: ok + "Transfer-Encoding:\r\n chunked\r\nContent-Length: 5\r\n\r\nhello"},
		"NUL in a value":            {raw: ok + "X-A: \x00\r\nContent-Length: 5\r\n\r\nhello"},
		"escape in a value":         {raw: ok + "X-A: \x1b[2J\r\nContent-Length: 5\r\n\r\nhello"},
		"space before the colon":    {raw: ok + "Content-Length : 5\r\n\r\nhello"},
		"no colon":                  {raw: ok + "X-A\r\nContent-Length: 5\r\n\r\nhello"},
		"empty name":                {raw: ok + ": b\r\nContent-Length: 5\r\n\r\nhello"},
		"name with a space":         {raw: ok + "X A: b\r\nContent-Length: 5\r\n\r\nhello"},
		"HTTP/0.9":                  {raw: "hello", closes: true},
		"no answer":                 {raw: "", closes: true},
		"head that ends early":      {raw: ok + "Content-Length: 5\r\n", closes: true},
		"101 unasked":               {raw: "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n" + evil},
		"101 bare":                  {raw: "HTTP/1.1 101 Switching Protocols\r\n\r\n" + evil},
		"interim with a length":     {raw: "HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\n\r\nhello" + ok5},
		"interim with chunks":       {raw: "HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + ok5},
		"100 with a length":         {raw: "HTTP/1.1 100 Continue\r\nContent-Length: 47\r\n\r\n" + evil + ok5},
		"head too long":             {raw: ok + "X-A: " + strings.Repeat("a", 300<<10) + "\r\nContent-Length: 5\r\n\r\nhello"},
		"too many fields":           {raw: ok + strings.Repeat("X-A: b\r\n", 5000) + "Content-Length: 5\r\n\r\nhello"},
		"interim answers for ever":  {raw: strings.Repeat("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n", 20_000) + ok5},
		"100 for ever":              {raw: strings.Repeat("HTTP/1.1 100 Continue\r\n\r\n", 20_000) + ok5},
		"leading empty line":        {raw: "\r\n" + ok5},
		"obs-text in a value":       {raw: ok + "X-A: caf\xe9\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		"no reason":                 {raw: "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		"unknown status":            {raw: "HTTP/1.1 299 What\r\nContent-Length: 5\r\n\r\nhello", status: 299, body: "hello"},
		"HTTP/1.0 until it closes":  {raw: "HTTP/1.0 200 OK\r\n\r\nhello", closes: true, status: 200, body: "hello"},
		"Connection names framing":  {raw: ok + "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello", status: 200, body: "hello"},
		"another coding":            {raw: ok + "Transfer-Encoding: gzip, chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"},
		"identity coding":           {raw: ok + "Transfer-Encoding: identity\r\n\r\nhello"},
		"chunked twice":             {raw: ok + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"coding with vertical tab":  {raw: ok + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"},
		"status line of a request":  {raw: "GET / HTTP/1.1\r\nHost: a\r\n\r\n"},
		"answer in a reason":        {raw: "HTTP/1.1 200 OK\rHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"},
		"endless status line":       {raw: "HTTP/1.1 200 " + strings.Repeat("a", 300<<10)},
		"TLS alert on a plain port": {raw: "\x15\x03\x03\x00\x02\x02\x28"},
	}
	for name, value := range map[string]string{
		"with plus": "+5", "with minus": "-5", "in hex": "0x5", "with underscore": "0_5", "empty": "", "of two": "5, 6",
		"overflowing": "18446744073709551621", "with letters": "5x",
	} {
		cases["length "+name] = answer{raw: ok + "Content-Length: " + value + "\r\n\r\nhello"}
	}
	for name, line := range map[string]string{
		"two digits": "HTTP/1.1 20 OK", "four digits": "HTTP/1.1 2000 OK", "letters": "HTTP/1.1 2x0 OK", "zero": "HTTP/1.1 000 OK",
		"099": "HTTP/1.1 099 OK", "negative": "HTTP/1.1 -20 OK",
		"none": "HTTP/1.1", "HTTP/2": "HTTP/2 200 OK", "HTTP/1.2": "HTTP/1.2 200 OK", "lower case": "http/1.1 200 OK",
		"two spaces": "HTTP/1.1  200 OK", "NUL in the reason": "HTTP/1.1 200 O\x00K",
		"tab": "HTTP/1.1\t200 OK",
	} {
		cases["status line, "+name] = answer{raw: line + "\r\nContent-Length: 5\r\n\r\nhello"}
	}
	return cases
}

// answerBodies are hostile in or behind their bodies.
func answerBodies() map[string]answer {
	cases := map[string]answer{
		"length that does not come":  {raw: ok + "Content-Length: 50\r\n\r\nhello", closes: true, status: 200, body: "hello", broken: true},
		"more than its length":       {raw: ok5 + evil, status: 200, body: "hello", doubtful: true},
		"more than its chunks":       {raw: okPart + "5\r\nhello\r\n0\r\n\r\n" + evil, status: 200, body: "hello", doubtful: true},
		"204 with a body":            {raw: "HTTP/1.1 204 No Content\r\nContent-Length: 48\r\n\r\n" + evil, status: 204, doubtful: true},
		"204 with bytes behind it":   {raw: "HTTP/1.1 204 No Content\r\n\r\n" + evil, status: 204, doubtful: true},
		"204 with chunks":            {raw: "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nevil\r\n0\r\n\r\n", status: 204, doubtful: true},
		"304 with a body":            {raw: "HTTP/1.1 304 Not Modified\r\nContent-Length: 48\r\n\r\n" + evil, status: 304, doubtful: true},
		"HEAD with a body":           {raw: "HTTP/1.1 200 OK\r\nContent-Length: 48\r\n\r\n" + evil, method: "HEAD", status: 200, doubtful: true},
		"HEAD with chunks":           {raw: okPart + "4\r\nevil\r\n0\r\n\r\n", method: "HEAD", status: 200, doubtful: true},
		"205 with a body":            {raw: "HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello", status: 205, body: "hello"},
		"extension with a bare LF":   {raw: okPart + "5;a\nhello\r\n0\r\n\r\n", status: 200, broken: true},
		"extension without end":      {raw: okPart + "5;" + strings.Repeat("a", 100_000) + "\r\nhello\r\n0\r\n\r\n", status: 200, broken: true},
		"trailer with a bare LF":     {raw: okPart + "5\r\nhello\r\n0\r\nX-A: b\nX-B: c\r\n\r\n", status: 200, body: "hello", broken: true},
		"trailers without end":       {raw: okPart + "5\r\nhello\r\n0\r\n" + strings.Repeat("X-A: b\r\n", 50_000), status: 200, body: "hello", broken: true},
		"trailers that frame":        {raw: okPart + "5\r\nhello\r\n0\r\nContent-Length: 5\r\nTransfer-Encoding: gzip\r\nConnection: close\r\n\r\n", status: 200, body: "hello"},
		"chunks that end early":      {raw: okPart + "5\r\nhello\r\n", closes: true, status: 200, body: "hello", broken: true},
		"chunk that ends early":      {raw: okPart + "5\r\nhel", closes: true, status: 200, body: "hello", broken: true},
		"last chunk that ends early": {raw: okPart + "5\r\nhello\r\n0\r\n", closes: true, status: 200, body: "hello", broken: true},
	}
	for name, size := range map[string]string{
		"plus": "+5", "minus": "-5", "0x": "0x5", "underscore": "0_5", "17 digits": "00000000000000005", "space behind": "5 ",
		"space before": " 5", "nothing": "", "letters": "xyz", "64 bits": "ffffffffffffffff",
	} {
		cases["chunk size with "+name] = answer{raw: okPart + size + "\r\nhello\r\n0\r\n\r\n", status: 200, broken: true}
	}
	for name, end := range map[string]string{"nothing": "", "LF": "\n", "CR": "\r", "two bytes": "XX", "CR and another": "\rX",
		"another and LF": "X\n"} {
		cases["chunk followed by "+name] = answer{raw: okPart + "5\r\nhello" + end + "0\r\n\r\n", status: 200, body: "hello", broken: true}
	}
	return cases
}

// perform plays the origin: the path /hostile gets the case's bytes, every other path gets itself as its answer.
func (a answer) perform(c *harness.RecordedConn) {
	for {
		head, err := c.ReadHead()
		if err != nil {
			return
		}
		_, rest, _ := strings.Cut(head, " ")
		path, _, _ := strings.Cut(rest, " ")
		if path == "/hostile" {
			c.Answer(a.raw)
			if a.closes {
				return
			}
			continue
		}
		c.Answer(ok + "Content-Length: " + strconv.Itoa(len(path)) + "\r\n\r\n" + path)
	}
}

// TestAnswers has the origin answer each of the tables' answers, on a connection that other requests come over before and behind it.
func TestAnswers(t *testing.T) {
	t.Parallel()
	for group, cases := range map[string]map[string]answer{"head": answerHeads(), "body": answerBodies()} {
		for name, a := range cases {
			t.Run(group+"/"+name, func(t *testing.T) {
				t.Parallel()
				for _, down := range []harness.Down{harness.H1, harness.H2C} {
					a.run(t, down)
				}
			})
		}
	}
}

func (a answer) run(t *testing.T, down harness.Down) {
	t.Helper()
	b := newBed(t, down, a.perform)
	honest := func(path string) {
		t.Helper()
		r, err := harness.Do(b.Client, harness.Request{Target: path})
		if err != nil || r.Err != nil || r.Status != 200 || string(r.Body) != path {
			t.Errorf("%s: an honest request for %s got %+v, %v", down, path, r, err)
		}
	}
	honest("/before")
	r, err := harness.Do(b.Client, harness.Request{Method: a.method, Target: "/hostile"})
	a.judge(t, down, r, err)
	for i := range 3 {
		honest("/behind" + strconv.Itoa(i))
	}
	if down.IsH1() {
		a.bytes(t, b)
	}
}

func (a answer) judge(t *testing.T, down harness.Down, r *harness.Result, err error) {
	t.Helper()
	switch {
	case a.doubtful && (err != nil || r.Status == 502 || r.Err != nil):
	case err != nil && a.broken: // to break off before the head went out tells the client as well
	case err != nil:
		t.Errorf("%s: no answer: %v", down, err)
	case a.broken && r.Status == 502:
	case a.broken && (r.Status != a.status || r.Err == nil || !strings.HasPrefix(a.body, string(r.Body))):
		t.Errorf("%s: got %d %q and the end %v, want a broken %d", down, r.Status, r.Body, r.Err, a.status)
	case a.broken:
	case a.status == 0 && (r.Status != 502 || r.Err != nil):
		t.Errorf("%s: got %d %.100q, %v, want 502", down, r.Status, r.Body, r.Err)
	case a.status == 0:
	case r.Status != a.status || string(r.Body) != a.body || r.Err != nil:
		t.Errorf("%s: got %d %.100q, %v, want %d %q", down, r.Status, r.Body, r.Err, a.status, a.body)
	}
	if r != nil {
		for _, name := range []string{"Content-Length", "Transfer-Encoding", "Connection"} {
			if r.Trailers.Has(name) {
				t.Errorf("%s: %s stands in the trailers: %v", down, name, r.Trailers)
			}
		}
	}
}

// bytes sends the request and an honest one on one connection and reads what comes byte by byte: two answers, or one and the end.
func (a answer) bytes(t *testing.T, b *bed) {
	t.Helper()
	method := a.method
	if method == "" {
		method = "GET"
	}
	raw := b.send(t, method+" /hostile HTTP/1.1\r\nHost: a.test\r\n\r\nGET /next HTTP/1.1\r\nHost: a.test\r\nConnection: close\r\n\r\n")
	got, err := answersOf(raw, method, "GET")
	switch {
	case err != nil && !errors.Is(err, errCut):
		t.Errorf("the client got what no strict sender writes: %v in %.300q", err, raw)
	case a.broken && len(got) > 0 && got[0].status == a.status:
		t.Errorf("a broken answer reads as whole: %.300q", raw)
	case a.broken, a.doubtful && len(got) == 0:
	case len(got) != 2 || got[1].status != 200 || got[1].body != "/next":
		t.Errorf("the client got %+v, %v, want two answers: %.300q", got, err, raw)
	}
}

type clientAnswer struct {
	status int
	body   string
}

// answersOf takes apart, strictly, what an HTTP/1.1 client got for its requests; interim answers are left out.
func answersOf(raw string, methods ...string) (all []clientAnswer, err error) {
	for rest := raw; rest != ""; {
		line, after, ok := strings.Cut(rest, "\r\n")
		if !ok {
			return all, cutOff(rest)
		}
		var status int
		if n, err := fmt.Sscanf(line, "HTTP/1.1 %3d", &status); n != 1 || err != nil || !fieldValue(strings.TrimSuffix(line, " ")) {
			return all, fmt.Errorf("status line %q", line)
		}
		fields, after, err := section(after)
		if err != nil {
			return all, err
		}
		if rest = after; status < 200 {
			continue
		}
		if len(all) == len(methods) {
			return all, fmt.Errorf("an answer too many: %q", line)
		}
		a := clientAnswer{status: status}
		lengths, codings := fields.Values("Content-Length"), fields.Values("Transfer-Encoding")
		switch bodiless := methods[len(all)] == "HEAD" || status == 204 || status == 304; {
		case len(lengths)+len(codings) > 1, status == 204 && len(lengths)+len(codings) > 0:
			return all, fmt.Errorf("Content-Length %q and Transfer-Encoding %q with %d", lengths, codings, status)
		case bodiless:
		case len(codings) == 1:
			if a.body, _, rest, err = chunks(rest); err != nil {
				return all, err
			}
		case len(lengths) == 1:
			n, err := strconv.Atoi(lengths[0])
			if err != nil || len(rest) < n {
				return all, errCut
			}
			a.body, rest = rest[:n], rest[n:]
		default:
			return all, fmt.Errorf("an answer without a length: %q", line)
		}
		all = append(all, a)
	}
	return all, nil
}

// TestUnsolicitedAnswer has the origin send an answer that nobody asked for on a connection that waits for its next request. Whoever asks
// next must not get it, also when nothing else comes on that connection.
func TestUnsolicitedAnswer(t *testing.T) {
	t.Parallel()
	for name, silent := range map[string]bool{"and answers on": false, "and falls silent": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			speak, spoke := make(chan struct{}), make(chan struct{})
			first := make(chan struct{}, 1)
			first <- struct{}{}
			b := newBed(t, harness.H1, func(c *harness.RecordedConn) {
				for {
					if _, err := c.ReadHead(); err != nil {
						return
					}
					c.Answer(ok + "Content-Length: 4\r\n\r\ntrue")
					select {
					case <-first: // of all connections
						<-speak
						c.Answer(evil)
						close(spoke)
						if silent {
							_, _ = io.Copy(io.Discard, c)
						}
					default:
					}
				}
			}, func(o *harness.EnvOptions) {
				o.Rule = func(r *config.Rule) { r.BackendTimeout = 300 * time.Millisecond }
			})
			if r, err := harness.Do(b.Client, harness.Request{}); err != nil || string(r.Body) != "true" {
				t.Fatalf("got %+v, %v", r, err)
			}
			speak <- struct{}{}
			<-spoke
			for range 3 {
				r, err := harness.Do(b.NewClient(t), harness.Request{})
				if err != nil || strings.Contains(string(r.Body), "evil") {
					t.Errorf("a request got another's answer, or none: %+v, %v", r, err)
				}
			}
		})
	}
}
