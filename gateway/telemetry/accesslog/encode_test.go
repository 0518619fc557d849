package accesslog

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

// reference is the line as slog's JSON handler writes it.
func reference(t testing.TB, x *exchange.Exchange, e *Entry, query bool) []byte {
	t.Helper()
	var out bytes.Buffer
	flag, protocol, client, detail := "-", "unknown", "", ""
	var ref exchange.RouteRef
	if x.Fault != nil {
		flag = string(x.Fault.Kind)
		if x.Fault.Err != nil {
			detail = x.Fault.Err.Error()
		}
	}
	if int(x.Peer.Proto) < exchange.Protos {
		protocol = x.Peer.Proto.String()
	}
	if x.Peer.Remote.IsValid() {
		client = x.Peer.Remote.String()
	}
	if x.Route != nil {
		ref = *x.Route
	}
	path := x.Req.Target
	if !query {
		path, _, _ = strings.Cut(path, "?")
	}
	line := slog.NewRecord(x.Start, slog.LevelInfo, "access", 0)
	line.AddAttrs(
		slog.Int64("duration_us", e.Took.Microseconds()), slog.Int("status", x.Resp.Status), slog.String("flag", flag),
		slog.String("method", cut(x.Req.Method, maxText)), slog.String("authority", cut(e.Authority, maxText)),
		slog.String("path", cut(path, maxText)), slog.String("protocol", protocol),
		slog.Int64("bytes_in", x.BytesIn), slog.Int64("bytes_out", x.BytesOut),
		slog.String("route", ref.Route), slog.String("rule", ref.Rule), slog.String("cluster", x.Cluster),
		slog.String("endpoint", x.Endpoint), slog.Int("attempts", x.Attempts), slog.String("bind", x.Peer.Bind),
		slog.String("client", client), slog.String("user_agent", cut(x.Req.Fields.Get(exchange.UserAgent), maxText)),
		slog.String("request_id", cut(x.Req.Fields.Get(exchange.XRequestID), maxText)), slog.String("trace_id", cut(x.TraceID, maxText)),
	)
	if detail != "" {
		line.AddAttrs(slog.String("detail", cut(detail, maxDetail)))
	}
	if err := slog.NewJSONHandler(&out, nil).Handle(context.Background(), line); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func cut(s string, limit int) string {
	if len(s) > limit {
		return s[:limit] + "..."
	}
	return s
}

// line is what the encoder makes of an exchange.
func line(x *exchange.Exchange, e *Entry, query bool) []byte {
	var b batch
	b.add(x, e, detailOf(x.Fault), query)
	var c cursor
	c.reset(&b)
	r, text := c.advance()
	return new(encoder).append(nil, r, text)
}

// tokens takes a line apart: keys and values in their order.
func tokens(t testing.TB, line []byte) (list []json.Token) {
	t.Helper()
	d := json.NewDecoder(bytes.NewReader(line))
	d.UseNumber()
	for {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return list
		}
		if err != nil {
			t.Fatalf("line %q: %v", line, err)
		}
		list = append(list, token)
	}
}

// wantReference holds that the line is valid JSON, one line, and says what slog's would.
func wantReference(t testing.TB, x *exchange.Exchange, e *Entry, query bool) {
	t.Helper()
	got, want := line(x, e, query), reference(t, x, e, query)
	if !json.Valid(got) {
		t.Fatalf("not JSON: %q", got)
	}
	if i := bytes.IndexFunc(got, func(r rune) bool { return r < ' ' || r == '\u2028' || r == '\u2029' }); i != len(got)-1 || got[i] != '\n' {
		t.Fatalf("not one line: %q", got)
	}
	if diff := cmp.Diff(tokens(t, want), tokens(t, got)); diff != "" {
		t.Errorf("unlike slog's line (-want +got):\n%s", diff)
	}
}

// FuzzEncode holds the encoder against slog's JSON handler.
func FuzzEncode(f *testing.F) {
	f.Add("GET", "shop.example", "/cart?x", "curl/8", "connection reset", "HTTPRoute/a/shop", "[2001:db8::1]:443",
		int64(1767323045), uint32(6000), int64(130))
	f.Add("\"\\", "\x00\x1f\x7f", "/\xff\xc3\n", "\u2028\u2029\ufffd", "\r\t", "é/\xe9", "[fe80::1%e\"th]:1", int64(0), uint32(0), int64(-1))
	f.Add("<script>&", strings.Repeat("é", 9), strings.Repeat("/", 5000), "1234567\"", "", "\U0001F600", "192.0.2.7:4711",
		int64(-1), uint32(999_999_999), int64(1)<<62)
	f.Fuzz(func(t *testing.T, method, authority, target, agent, detail, name, client string, second int64, nanos uint32, number int64) {
		x := request(target)
		x.Start = time.Unix(second%(1<<37), int64(nanos%1e9)).UTC()
		if year := x.Start.Year(); year < 0 || year > 9999 {
			return // slog writes an error in place of the time
		}
		x.Req.Method, x.TraceID, x.Peer.Bind, x.Cluster, x.Endpoint = method, agent, name, name+"/c", authority
		x.Req.Fields.Set("User-Agent", agent)
		x.Req.Fields.Set("X-Request-Id", method+name)
		x.Peer.Remote, _ = netip.ParseAddrPort(client)
		x.Peer.Proto = exchange.Proto(number)
		x.Route = &exchange.RouteRef{Route: name, Rule: detail}
		x.BytesIn, x.BytesOut, x.Resp.Status, x.Attempts = number, -number, int(number%1000), int(nanos)
		e := &Entry{Took: time.Duration(number), Authority: authority}
		wantReference(t, x, e, number%2 == 0)
		x.Fault, x.Route = exchange.NewFault(exchange.Kind(name), errors.New(detail)), nil
		if name != "" { // a fault without a kind is none
			wantReference(t, x, e, number%2 == 0)
		}
	})
}

// TestEveryByteIsEscapedAsSlogDoes puts each byte, and each of the sequences that are special, at every place of a word.
func TestEveryByteIsEscapedAsSlogDoes(t *testing.T) {
	hard := []string{"\u2028", "\u2029", "\u2027", "\ufffd", "\U0010FFFF", "\xed\xa0\x80", "\xc0\x80", "\xe2\x80", "\xf0\x9f\x98"}
	for c := range 256 {
		hard = append(hard, string([]byte{byte(c)}))
	}
	for _, s := range hard {
		for place := range 10 {
			x := request("/")
			x.Cluster, x.Endpoint = strings.Repeat("a", place)+s, s+strings.Repeat("z", place)
			x.Req.Method, x.TraceID = x.Cluster, x.Endpoint
			x.Req.Fields.Set("User-Agent", strings.Repeat("a", place)+s+"tail")
			wantReference(t, x, &Entry{}, false)
		}
	}
}

func TestIsPlain(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	const clean = ` !#$%&'()*+,-./09:;<=>?@AZ[]^_` + "`az{|}~\x7f"
	dirty := []byte("\x00\x01\x1f\"\\\x80\xa0\xff")
	for length := range 40 {
		b := make([]byte, length)
		for range 50 {
			for i := range b {
				b[i] = clean[random.IntN(len(clean))]
			}
			if !isPlain(string(b)) {
				t.Fatalf("%q is plain", b)
			}
		}
		for i := range b {
			for _, c := range dirty {
				was := b[i]
				b[i] = c
				if isPlain(string(b)) {
					t.Fatalf("%q is not plain", b)
				}
				b[i] = was
			}
		}
	}
}

func TestTimes(t *testing.T) {
	var e encoder
	for start, want := range map[string]string{
		"2026-01-02T03:04:05.000006Z":    "2026-01-02T03:04:05.000006Z",
		"2026-01-02T03:04:05Z":           "2026-01-02T03:04:05Z",
		"2026-01-02T03:04:05.9+01:00":    "2026-01-02T02:04:05.9Z",
		"2026-01-02T03:04:05.123456789Z": "2026-01-02T03:04:05.123456789Z",
		"1970-01-01T00:00:00Z":           "1970-01-01T00:00:00Z",
		"1969-12-31T23:59:59.5Z":         "1969-12-31T23:59:59.5Z",
		"0001-01-01T00:00:00Z":           "0001-01-01T00:00:00Z",
	} {
		at, err := time.Parse(time.RFC3339Nano, start)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time from the encoder's memory
			if got := string(e.appendStart(nil, at.Unix(), int32(at.Nanosecond()))); got != `{"time":"`+want {
				t.Errorf("%s: %s, want %s", start, got, want)
			}
		}
	}
}

func TestRecordAndEncodeDoNotAllocate(t *testing.T) {
	l, x := open(t, Options{Writer: io.Discard}), request("/cart")
	closeLog(t, l)
	for i := range l.shards {
		l.shards[i].closed = false
	}
	round := func() {
		for range 100 {
			l.Record(x, &Entry{Took: time.Millisecond, Authority: "shop.example"})
		}
		l.write(false)
	}
	for range 50 { // until every shard's buffers are large enough
		round()
	}
	before := l.Stats()
	if allocs := testing.AllocsPerRun(100, round); allocs != 0 {
		t.Errorf("%v allocations for 100 lines", allocs)
	}
	if s := l.Stats(); s.Written-before.Written != 101*100 || s.Full != 0 {
		t.Errorf("stats %+v, before %+v", s, before)
	}
}
