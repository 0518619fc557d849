package h1

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// TestInSteps is how a server uses the reader that waits by itself.
func TestInSteps(t *testing.T) {
	var r Reader
	small := make([]byte, 64)
	r.Init(nil, small, Limits{})
	var head exchange.Head
	var m Message
	if r.Started() || !r.Whole() || r.Trailers() != nil || len(r.Buffered()) != 0 {
		t.Error("a new reader has something")
	}
	feed := func(s string) (ok bool) {
		t.Helper()
		for s != "" {
			n := copy(r.Space(), s)
			if n == 0 {
				t.Fatal("no space")
			}
			r.Advance(n)
			s = s[n:]
		}
		ok, err := r.NextRequest(&head, &m)
		if err != nil {
			t.Fatal(err)
		}
		return ok
	}
	if ok := feed("\r\n"); ok || r.Started() {
		t.Error("an empty line starts a request")
	}
	if space := r.Space(); &space[0] != &small[0] || len(space) != len(small) {
		t.Error("the connection's own memory is not used, or not again")
	}
	if ok := feed("GET /a HTTP/1.1\r\n"); ok || !r.Started() {
		t.Error("half a request is a request, or none at all")
	}
	if ok := feed("Host: a\r\n\r\nGET /b HTTP/1.1\r\nHost: b\r\n\r\nGET /c HTTP/1.1\r\nHost: c\r\n\r\nGET"); !ok || head.Target != "/a" {
		t.Errorf("got %s", showRequest(&head))
	}
	if got := string(r.Buffered()); !strings.HasPrefix(got, "GET /b") || !strings.HasSuffix(got, "GET") {
		t.Errorf("behind the head is %q", got)
	}
	for _, want := range []string{"/b", "/c"} {
		r.Next()
		if ok := feed(""); !ok || head.Target != want || head.Authority != want[1:] {
			t.Errorf("want %s, got %s", want, showRequest(&head))
		}
	}
	r.Next()
	if ok := feed(""); ok || string(r.Buffered()) != "GET" {
		t.Errorf("%v, %q", ok, r.Buffered())
	}
	if ok := feed(" / HTTP/1.0\r\n\r\n"); !ok || head.Target != "/" || !m.Close {
		t.Errorf("got %s", showRequest(&head))
	}
	r.Next()
	if space := r.Space(); &space[0] != &small[0] || len(space) != len(small) {
		t.Error("an idle connection does not use its own memory")
	}
	r.Release()
}

// Room for what follows a head is behind it, be there memory left or not.
func TestSpaceWithinAMessage(t *testing.T) {
	raw := get + "Connection: upgrade\r\nUpgrade: x\r\n\r\n"
	for _, small := range []int{len(raw), len(raw) + 10, 8192} {
		var r Reader
		r.Init(strings.NewReader(raw), make([]byte, small), Limits{})
		var head exchange.Head
		if err := r.ReadRequest(&head, &Message{}); err != nil {
			t.Fatal(err)
		}
		before := showRequest(&head)
		for range 3 {
			r.Advance(copy(r.Space(), "early"))
		}
		if got := showRequest(&head); got != before || string(r.Buffered()) != "earlyearlyearly" {
			t.Errorf("with memory of %d the head\n%sbecame\n%sand is followed by %q", small, before, got, r.Buffered())
		}
		r.Raw()
		if n, err := r.Read(make([]byte, 10)); n != 10 || err != nil {
			t.Errorf("%d, %v", n, err)
		}
		r.Release()
	}
}

// TestUnreadBodyEndsTheConnection goes on to the next message without having read the body before.
func TestUnreadBodyEndsTheConnection(t *testing.T) {
	for name, raw := range map[string]string{
		"length":  post + "Content-Length: 5\r\n\r\n" + smuggled,
		"chunked": post + "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n" + smuggled,
	} {
		t.Run(name, func(t *testing.T) {
			for _, call := range []bool{true, false} {
				var r Reader
				r.Init(strings.NewReader(raw), nil, Limits{})
				var head exchange.Head
				if err := r.ReadRequest(&head, &Message{}); err != nil {
					t.Fatal(err)
				}
				if n, err := r.Read(make([]byte, 2)); n != 2 || err != nil || r.Whole() {
					t.Fatal(n, err)
				}
				if call {
					r.Next()
				}
				if err := r.ReadRequest(&head, &Message{}); !errors.Is(err, errUnread) {
					t.Errorf("%s, %v", showRequest(&head), err)
				}
				if n, err := r.Read(make([]byte, 10)); n != 0 || err == nil || err == io.EOF || len(r.Buffered()) != 0 {
					t.Errorf("%d, %v, %q", n, err, r.Buffered())
				}
			}
		})
	}
}

// TestLargeBodies reads bodies much larger than any buffer, behind heads that leave much, little and no room.
func TestLargeBodies(t *testing.T) {
	payload := make([]byte, 300_000)
	for i := range payload {
		payload[i] = byte(i * 7919 >> 8)
	}
	for _, name := range []int{1, 500, poolSize - 4097, poolSize - 100,
		poolSize - len(post) - len("X: \r\nTransfer-Encoding: chunked\r\n\r\n"), 20_000} {
		head := post + "X: " + strings.Repeat("x", name) + "\r\n"
		for _, chunk := range []int{1000, 2100, 5000, 16 << 10, 100_000, 300_000} {
			var raw []byte
			raw = append(raw, head+"Transfer-Encoding: chunked\r\n\r\n"...)
			for rest := payload; len(rest) > 0; rest = rest[min(chunk, len(rest)):] {
				raw = AppendChunk(raw, rest[:min(chunk, len(rest))])
			}
			raw = append(raw, "0\r\nX-Sum: "+strings.Repeat("s", 5000)+"\r\n\r\n"...)
			checkLarge(t, string(raw), payload, chunk)
		}
		checkLarge(t, head+"Content-Length: 300000\r\n\r\n"+string(payload), payload, 0)
	}
}

func checkLarge(t *testing.T, raw string, payload []byte, chunk int) {
	t.Helper()
	for _, read := range []int{512, 4096, 32 << 10, 400_000} {
		for _, size := range []int{1460, 10_000, 1 << 20} {
			src := &pieces{rest: raw + smuggled, sizes: []int{size}}
			var r Reader
			r.Init(src, make([]byte, 1024), Limits{})
			var head exchange.Head
			if err := r.ReadRequest(&head, &Message{}); err != nil {
				t.Fatal(err)
			}
			before := showRequest(&head)
			got, err := readAll(t, &r, src, read)
			if err != nil || !bytes.Equal(got, payload) || (chunk > 0) != (len(r.Trailers()) == 1) {
				t.Fatalf("chunks of %d, reads of %d, pieces of %d: %d bytes, %v", chunk, read, size, len(got), err)
			}
			if showRequest(&head) != before {
				t.Fatal("the head changed while the body was read")
			}
			if src.count > 10+2*len(raw)/min(size, read, 4096) {
				t.Errorf("chunks of %d, reads of %d, pieces of %d: the connection was read %d times", chunk, read, size, src.count)
			}
			r.Next()
			if err := r.ReadRequest(&head, &Message{}); err != nil || head.Target != "/smuggled" {
				t.Fatalf("then %s, %v", showRequest(&head), err)
			}
			r.Release()
		}
	}
}

// A body of known length goes straight into the reader's memory.
func TestLengthBodyIsReadDirectly(t *testing.T) {
	src := &pieces{rest: post + "Content-Length: 100000\r\n\r\n" + strings.Repeat("x", 100_000) + smuggled}
	var r Reader
	r.Init(src, make([]byte, 128), Limits{})
	if err := r.ReadRequest(&exchange.Head{}, &Message{}); err != nil {
		t.Fatal(err)
	}
	got, err := readAll(t, &r, src, 200_000)
	if len(got) != 100_000 || err != nil || src.count != 2 || len(r.Buffered()) != 0 {
		t.Errorf("%d bytes, %v, after %d reads, %d read too much", len(got), err, src.count, len(r.Buffered()))
	}
}

// errorWith returns bytes and an error together.
type errorWith struct {
	text string
	err  error
}

func (s *errorWith) Read(p []byte) (int, error) {
	n := copy(p, s.text)
	s.text = s.text[n:]
	if s.text != "" {
		return n, nil
	}
	return n, s.err
}

// TestErrorsOfTheConnection has them come with bytes and alone: the bytes count first.
func TestErrorsOfTheConnection(t *testing.T) {
	broken := errors.New("broken")
	for _, raw := range []string{get, get + "\r\n", post + "Content-Length: 5\r\n\r\nhel", post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhel",
		post + "Transfer-Encoding: chunked\r\n\r\n5000\r\nhel"} {
		for _, alone := range []bool{true, false} {
			src := io.Reader(&errorWith{raw, broken})
			if alone {
				src = io.MultiReader(strings.NewReader(raw), iotest.ErrReader(broken))
			}
			var r Reader
			r.Init(src, nil, Limits{})
			err := r.ReadRequest(&exchange.Head{}, &Message{})
			want := ""
			if raw == get+"\r\n" {
				r.Next()
				err = r.ReadRequest(&exchange.Head{}, &Message{})
			} else if raw != get {
				want = "hel"
				if err != nil {
					t.Fatal(err)
				}
			}
			got := []byte(nil)
			if err == nil {
				got, err = io.ReadAll(&r)
			}
			if string(got) != want || err != broken {
				t.Errorf("%q: %q, %v", raw, got, err)
			}
			if r.Whole() && want != "" {
				t.Errorf("%q is whole", raw)
			}
		}
	}
	var r Reader
	r.Init(readsNothing{}, nil, Limits{})
	if err := r.ReadRequest(&exchange.Head{}, &Message{}); err != io.ErrNoProgress {
		t.Errorf("a connection that gives nothing: %v", err)
	}
}

type readsNothing struct{}

func (readsNothing) Read([]byte) (int, error) { return 0, nil }

// A read that the connection refused for a moment, as a deadline does, can be made again.
func TestReadAgain(t *testing.T) {
	for _, framing := range []string{"Content-Length: 5\r\n\r\nhe", "Transfer-Encoding: chunked\r\n\r\n5\r\nhe"} {
		var r Reader
		r.Init(io.MultiReader(strings.NewReader(post+framing), iotest.TimeoutReader(strings.NewReader("llo\r\n0\r\n\r\n"))), nil, Limits{})
		if err := r.ReadRequest(&exchange.Head{}, &Message{}); err != nil {
			t.Fatal(err)
		}
		var got []byte
		p := make([]byte, 1)
		for timeouts := 0; ; {
			n, err := r.Read(p)
			got = append(got, p[:n]...)
			if err == iotest.ErrTimeout && timeouts == 0 {
				timeouts++
			} else if err != nil {
				if string(got) != "hello" || err != io.EOF {
					t.Errorf("%q, %v", got, err)
				}
				break
			}
		}
	}
}

// TestExtensionsGrowWithData has more than 4 KiB of extensions in a body that is large enough for them.
func TestExtensionsGrowWithData(t *testing.T) {
	raw := post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("800;"+strings.Repeat("s", 128)+"\r\n"+strings.Repeat("x",
		2048)+"\r\n", 100) + "0\r\n\r\n"
	if requests, err := firstError(raw); requests != 1 || err != io.EOF {
		t.Errorf("%d, %v", requests, err)
	}
}

// TestNothingIsScannedTwice feeds a long head byte by byte; if each byte made a parse of all that came before, this would be 2 * 10^9 steps.
func TestNothingIsScannedTwice(t *testing.T) {
	raw := get + strings.Repeat("X-Name: value\r\n", 4000) + "\r\n"
	var r Reader
	r.Init(&pieces{rest: raw, sizes: []int{1}}, make([]byte, 1024), Limits{Fields: 5000})
	parses := 0
	for range raw {
		if r.complete() {
			parses++
		}
		if ok, err := r.NextRequest(&exchange.Head{}, &Message{}); ok || err != nil {
			t.Fatalf("%v, %v after %d", ok, err, r.end)
		}
		if err := r.receive(); err != nil {
			t.Fatal(err)
		}
	}
	var head exchange.Head
	if ok, err := r.NextRequest(&head, &Message{}); !ok || len(head.Fields) != 4000 {
		t.Errorf("%v, %v, %d fields", ok, err, len(head.Fields))
	}
	if parses > 1 {
		t.Errorf("%d parses of a head that was not whole", parses)
	}
}

// TestNextTakesTheViewsAway holds Next to its word in builds that poison memory.
func TestNextTakesTheViewsAway(t *testing.T) {
	probe := []byte{1}
	if exchange.Poison(probe); probe[0] == 1 {
		t.Skip("this build does not poison memory")
	}
	for _, raw := range []string{get, get + "X-A: " + strings.Repeat("a", 20_000) + "\r\n"} {
		var r Reader
		r.Init(strings.NewReader(raw+"\r\n"+get+"\r\n"), make([]byte, 1024), Limits{})
		var head exchange.Head
		if err := r.ReadRequest(&head, &Message{}); err != nil {
			t.Fatal(err)
		}
		r.Next()
		if head.Method == "GET" || head.Target == "/" {
			t.Errorf("%q is still there", head.Method)
		}
		if err := r.ReadRequest(&head, &Message{}); err != nil || head.Method != "GET" {
			t.Errorf("then %s, %v", showRequest(&head), err)
		}
	}
}
