package hostile

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/gateway/downstream"
	"gatehouse.dev/gatehouse/gateway/exchange"
	"gatehouse.dev/gatehouse/test/harness"
)

func TestMain(m *testing.M) {
	flag.Parse()
	if parallel := flag.Lookup("test.parallel"); parallel.Value.String() == parallel.DefValue {
		_ = parallel.Value.Set("24") // these tests wait for limits to end connections far more than they work
	}
	if os.Getenv(attackVariable) != "" {
		attackFromHere()
	}
	harness.Main(m)
}

// quick are limits under which the gateway ends every connection by itself, so that a test reads to the end of one and need not guess when
// nothing more will come.
func quick() downstream.Limits {
	return downstream.Limits{HeaderTimeout: time.Second, BodyIdleTimeout: time.Second, IdleTimeout: time.Second}
}

// bed is a gateway in front of an origin that records.
type bed struct {
	*harness.Env
	origin *harness.Recorder
}

// newBed starts a gateway whose clients speak down, in front of an HTTP/1.1 origin that follows the script.
func newBed(t testing.TB, down harness.Down, script func(*harness.RecordedConn), change ...func(*harness.EnvOptions)) *bed {
	t.Helper()
	origin := harness.NewRecorder(t, script)
	all := append([]func(*harness.EnvOptions){func(o *harness.EnvOptions) {
		o.Backend = harness.Cluster("recorder", harness.UpH1, origin.Addr)
		o.Limits = quick()
	}}, change...)
	return &bed{harness.New(t, harness.Combo{Down: down, Up: harness.UpH1}, nil, all...), origin}
}

// limited changes a bed's limits.
func limited(change func(*downstream.Limits)) func(*harness.EnvOptions) {
	return func(o *harness.EnvOptions) { change(&o.Limits) }
}

// exchanged sends bytes over a connection and returns what comes until the other side ends it.
func exchanged(conn net.Conn, data string) string {
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(harness.Patience))
	sent := make(chan struct{})
	go func() { // an answer may come before all is read
		_, _ = io.WriteString(conn, data)
		close(sent)
	}()
	got, _ := io.ReadAll(conn)
	_ = conn.Close()
	<-sent
	return string(got)
}

// send opens a connection to the gateway, sends bytes and returns what comes until the gateway ends it.
func (b *bed) send(t testing.TB, data string) string {
	t.Helper()
	conn, err := net.Dial("tcp", b.Address())
	if err != nil {
		t.Fatal(err)
	}
	return exchanged(conn, data)
}

// message is a request that reached an origin to its end.
type message struct {
	line     string // METHOD SP TARGET
	fields   harness.Fields
	body     string
	trailers harness.Fields
}

// errCut says that the recorded bytes end within a request.
var errCut = errors.New("the recorded bytes end within a request")

// reached returns the whole requests that reached the origin, and fails the test when any byte of what reached it, be it of a request that
// was cut off, is not what a strict sender would write: such a byte is what the next parser stumbles over.
func (b *bed) reached(t testing.TB) []message {
	t.Helper()
	return whole(t, b.origin)
}

func whole(t testing.TB, origin *harness.Recorder) []message {
	t.Helper()
	var all []message
	for _, c := range origin.Conns() {
		found, err := messages(c.Bytes())
		if err != nil && !errors.Is(err, errCut) {
			t.Errorf("the origin got what no strict sender writes: %v in %q", err, c.Bytes())
		}
		all = append(all, found...)
	}
	return all
}

// messages takes apart what a connection carried. It is strict on purpose: it knows one way to write each thing, the gateway's.
func messages(recorded string) (all []message, err error) {
	for rest := recorded; rest != ""; {
		var m message
		if m, rest, err = nextMessage(rest); err != nil {
			return all, err
		}
		all = append(all, m)
	}
	return all, nil
}

func nextMessage(recorded string) (m message, rest string, err error) {
	line, rest, ok := strings.Cut(recorded, "\r\n")
	if !ok {
		return m, "", cutOff(line)
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || !token(parts[0]) || !target(parts[1]) || parts[2] != "HTTP/1.1" {
		return m, "", fmt.Errorf("request line %q", line)
	}
	m.line = parts[0] + " " + parts[1]
	if m.fields, rest, err = section(rest); err != nil {
		return m, "", err
	}
	if hosts := m.fields.Values("Host"); len(hosts) != 1 || !exchange.ValidAuthority(hosts[0]) {
		return m, "", fmt.Errorf("Host %q", hosts)
	}
	lengths, codings := m.fields.Values("Content-Length"), m.fields.Values("Transfer-Encoding")
	switch {
	case len(lengths)+len(codings) > 1:
		return m, "", fmt.Errorf("Content-Length %q and Transfer-Encoding %q", lengths, codings)
	case len(codings) == 1 && codings[0] != "chunked":
		return m, "", fmt.Errorf("Transfer-Encoding %q", codings)
	case len(codings) == 1:
		m.body, m.trailers, rest, err = chunks(rest)
	case len(lengths) == 1:
		var n uint64
		if n, err = strconv.ParseUint(lengths[0], 10, 62); err != nil {
			return m, "", err
		}
		if uint64(len(rest)) < n {
			return m, "", errCut
		}
		m.body, rest = rest[:n], rest[n:]
	}
	return m, rest, err
}

// cutOff says what a line is that has no end: cut off, unless it holds what no line may.
func cutOff(line string) error {
	if i := strings.IndexFunc(strings.TrimSuffix(line, "\r"), func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }); i >= 0 {
		return fmt.Errorf("control byte in %q", line)
	}
	return errCut
}

// section reads field lines up to and with the empty line.
func section(recorded string) (fields harness.Fields, rest string, err error) {
	for {
		line, after, ok := strings.Cut(recorded, "\r\n")
		if !ok {
			return nil, "", cutOff(line)
		}
		if line == "" {
			return fields, after, nil
		}
		name, value, ok := strings.Cut(line, ": ")
		if !ok && strings.HasSuffix(line, ":") {
			name, ok = strings.TrimSuffix(line, ":"), true
		}
		if !ok || !token(name) || !fieldValue(value) {
			return nil, "", fmt.Errorf("field line %q", line)
		}
		fields = append(fields, harness.Field{Name: name, Value: value})
		recorded = after
	}
}

// chunks reads a chunked body.
func chunks(recorded string) (body string, trailers harness.Fields, rest string, err error) {
	for {
		line, after, ok := strings.Cut(recorded, "\r\n")
		if !ok {
			return "", nil, "", cutOff(line)
		}
		n, err := strconv.ParseUint(line, 16, 62)
		if err != nil || line[0] == '+' || strings.ContainsAny(line, "_xX") {
			return "", nil, "", fmt.Errorf("chunk size %q", line)
		}
		if n == 0 {
			trailers, rest, err = section(after)
			return body, trailers, rest, err
		}
		if uint64(len(after)) < n+2 {
			return "", nil, "", errCut
		}
		if after[n:n+2] != "\r\n" {
			return "", nil, "", fmt.Errorf("%q after a chunk of %d bytes", after[n:n+2], n)
		}
		body, recorded = body+after[:n], after[n+2:]
	}
}

func token(s string) bool {
	return s != "" && strings.Trim(strings.ToLower(s), "abcdefghijklmnopqrstuvwxyz0123456789!#$%&'*+-.^_`|~") == ""
}

func target(s string) bool {
	return s == "*" || strings.HasPrefix(s, "/") && bytes.IndexFunc([]byte(s), func(r rune) bool { return r <= ' ' || r == 0x7f || r == '#' }) < 0
}

func fieldValue(s string) bool {
	return strings.Trim(s, " \t") == s && strings.IndexFunc(s, func(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }) < 0
}

// TestMessages holds the judge to what it must see.
func TestMessages(t *testing.T) {
	const head = "POST / HTTP/1.1\r\nHost: a.test\r\n"
	for name, tc := range map[string]struct {
		raw   string
		whole int
		cut   bool
		bad   bool
	}{
		"two":                   {"GET /a HTTP/1.1\r\nHost: a.test\r\n\r\n" + head + "Content-Length: 2\r\n\r\nhi", 2, false, false},
		"chunked with trailers": {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-A: 1\r\n\r\n", 1, false, false},
		"cut head":              {head + "X-A: 1", 0, true, false},
		"cut body":              {head + "Content-Length: 3\r\n\r\nhi", 0, true, false},
		"cut chunk":             {head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhi", 0, true, false},
		"cut after a chunk":     {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n", 0, true, false},
		"both framings":         {head + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", 0, false, true},
		"folded":                {head + "X-A: 1\r\n b\r\n\r\n", 0, false, true},
		"bare LF":               {head + "X-A: 1\nX-B: 2\r\n\r\n", 0, false, true},
		"bare LF, cut":          {head + "X-A: 1\nX-B: 2", 0, false, true},
		"NUL":                   {head + "X-A: \x00\r\n\r\n", 0, false, true},
		"space before colon":    {head + "X-A : 1\r\n\r\n", 0, false, true},
		"two hosts":             {head + "Host: b.test\r\n\r\n", 0, false, true},
		"size with plus":        {head + "Transfer-Encoding: chunked\r\n\r\n+2\r\nhi\r\n0\r\n\r\n", 0, false, true},
		"long chunk":            {head + "Transfer-Encoding: chunked\r\n\r\n2\r\nhihi\r\n0\r\n\r\n", 0, false, true},
		"absolute form":         {"GET http://a.test/ HTTP/1.1\r\nHost: a.test\r\n\r\n", 0, false, true},
		"HTTP/1.0":              {"GET / HTTP/1.0\r\nHost: a.test\r\n\r\n", 0, false, true},
	} {
		all, err := messages(tc.raw)
		if len(all) != tc.whole || errors.Is(err, errCut) != tc.cut || (err != nil && !errors.Is(err, errCut)) != tc.bad {
			t.Errorf("%s: got %d whole, %v; want %d, cut %v, bad %v", name, len(all), err, tc.whole, tc.cut, tc.bad)
		}
	}
}
