package h1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// pieces is a connection whose bytes arrive in pieces of the given sizes, the last of which goes on. count is how often it was read.
type pieces struct {
	rest  string
	sizes []int
	count int
}

func (s *pieces) Read(p []byte) (int, error) {
	s.count++
	if s.rest == "" {
		return 0, io.EOF
	}
	n := len(s.rest)
	if len(s.sizes) > 0 {
		n = min(n, s.sizes[0])
		if len(s.sizes) > 1 {
			s.sizes = s.sizes[1:]
		}
	}
	n = copy(p, s.rest[:n])
	s.rest = s.rest[n:]
	return n, nil
}

// script says how to read a connection.
type script struct {
	small  int // bytes of memory that the connection brings
	limits Limits
	read   int    // bytes to ask of a body at once; 0 for many
	method string // of the requests whose responses are read; "" to read requests
}

// transcript reads messages until the connection fails and tells everything about them. It checks on the way what must hold always.
func transcript(t *testing.T, src *pieces, s script) string {
	t.Helper()
	var out strings.Builder
	var r Reader
	r.Init(src, make([]byte, s.small), s.limits)
	defer r.Release()
	var head exchange.Head
	var resp exchange.Response
	for {
		var m Message
		var err error
		show := func() string { return showRequest(&head) }
		if s.method == "" {
			err = r.ReadRequest(&head, &m)
		} else {
			show = func() string { return showResponse(&resp) }
			err = r.ReadResponse(&resp, &m, s.method)
		}
		if err != nil {
			fmt.Fprintf(&out, "error %v\n", err)
			if _, again := r.NextRequest(&head, &m); errors.As(err, new(*exchange.Fault)) && again != err {
				t.Errorf("a refused connection is read on: %v", again)
			}
			return out.String()
		}
		before := show()
		fmt.Fprintf(&out, "%s%+v\n", before, m)
		body, err := readAll(t, &r, src, s.read)
		fmt.Fprintf(&out, "body %q\n", body)
		if err != nil {
			fmt.Fprintf(&out, "error %v\n", err)
			return out.String()
		}
		for _, f := range r.Trailers() {
			fmt.Fprintf(&out, "trailer %q: %q\n", f.Name, f.Value)
		}
		if after := show(); after != before {
			t.Errorf("the head was\n%sand is, once the body is read,\n%s", before, after)
		}
		if !r.Whole() {
			t.Error("a body read to io.EOF is not whole")
		}
		r.Next()
	}
}

// readAll reads a body and holds Ready to its word.
func readAll(t *testing.T, r *Reader, src *pieces, size int) (body []byte, err error) {
	t.Helper()
	if size == 0 {
		size = 64 << 10
	}
	p := make([]byte, size)
	promised, promisedEnd, reads := 0, false, src.count
	for {
		if promised == 0 && !promisedEnd {
			promised, promisedEnd = r.Ready()
			reads = src.count
		}
		n, err := r.Read(p)
		body = append(body, p[:n]...)
		if (promised > 0 || promisedEnd) && src.count != reads {
			t.Errorf("after %q a read waited although %d bytes were ready (%v)", body, promised, promisedEnd)
		}
		if promisedEnd && (n > promised || err != nil && (err != io.EOF || n != promised)) {
			t.Errorf("%d bytes and %v after %q, promised %d to the end", n, err, body, promised)
		}
		promised -= min(n, promised)
		if err != nil {
			if m, again := r.Read(p); err == io.EOF && (m != 0 || again != io.EOF) {
				t.Errorf("%d bytes and %v after the end", m, again)
			}
			if err == io.EOF {
				err = nil
			}
			return body, err
		}
		if n == 0 {
			t.Fatal("a read of nothing without an error")
		}
	}
}

func showRequest(h *exchange.Head) string {
	return fmt.Sprintf("%q %q %q %q\n%s", h.Method, h.Authority, h.Target, h.Protocol, showFields(h.Fields))
}

func showResponse(r *exchange.Response) string {
	return fmt.Sprintf("%d\n%s", r.Status, showFields(r.Fields))
}

func showFields(fields exchange.Fields) string {
	var b strings.Builder
	for _, f := range fields {
		fmt.Fprintf(&b, "%q: %q\n", f.Name, f.Value)
		if f.ID != exchange.IDOf(f.Name) {
			fmt.Fprintf(&b, "but the ID is %d\n", f.ID)
		}
	}
	return b.String()
}

// everyWay reads one connection's bytes whole, byte by byte, in two pieces at every place (or at some, when it is long), with much and
// little memory of its own, and asking for much and little, and wants to see the same each time. It returns what it saw.
func everyWay(t *testing.T, raw string, s script) string {
	t.Helper()
	s.small = 4096
	want := transcript(t, &pieces{rest: raw}, s)
	compare := func(how string, sizes []int, s script) {
		t.Helper()
		if got := transcript(t, &pieces{rest: raw, sizes: sizes}, s); got != want {
			t.Fatalf("%s: got\n%s\nwhole:\n%s", how, got, want)
		}
	}
	tiny := s
	tiny.small, tiny.read = 16, 3
	compare("byte by byte", []int{1}, s)
	compare("byte by byte, little memory and little asked", []int{1}, tiny)
	compare("whole, little memory and little asked", nil, tiny)
	compare("in sevens", []int{7}, tiny)
	pooled := s
	pooled.small = 0
	step := 1
	if len(raw) > 2000 {
		step = len(raw) / 10
	}
	for at := 1; at < len(raw); at += step {
		compare(fmt.Sprintf("cut at %d", at), []int{at, len(raw)}, s)
		compare(fmt.Sprintf("cut at %d, pooled memory", at), []int{at, len(raw)}, pooled)
	}
	return want
}

// causeOf returns why a message was refused, and as what.
func causeOf(err error) (exchange.Kind, problem) {
	fault, _ := errors.AsType[*exchange.Fault](err)
	if fault == nil {
		return "", ""
	}
	why, _ := errors.AsType[problem](fault)
	return fault.Kind, why
}
