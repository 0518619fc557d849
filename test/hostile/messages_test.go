package hostile

import (
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/test/harness"
)

// Malformed messages of HTTP/2 and HTTP/3 (RFC 9113 8, RFC 9114 4): a stream error or 400, and nothing reaches the origin. What both
// protocols share is one table, sent over each.

// request returns the fields of a plain request. pairs replace the pseudo-fields among them, with "-" as the value to leave one out, and what is left
// of them follows.
func request(d harness.Down, pairs ...string) harness.Fields {
	usual := harness.F(":method", "GET", ":scheme", d.Scheme(), ":path", "/", ":authority", harness.DefaultHost)
	var more, fields harness.Fields
	replaced := map[string]string{}
	for _, f := range harness.F(pairs...) {
		if _, again := replaced[f.Name]; !again && usual.Has(f.Name) && strings.HasPrefix(f.Name, ":") {
			replaced[f.Name] = f.Value
		} else {
			more = append(more, f)
		}
	}
	for _, f := range usual {
		if value, ok := replaced[f.Name]; ok {
			f.Value = value
		}
		if f.Value != "-" {
			fields = append(fields, f)
		}
	}
	return append(fields, more...)
}

// malformed is a request in fields and DATA, as it must not be.
type malformed struct {
	fields   harness.Fields
	data     []string
	trailers harness.Fields
	// well says that the request is well-formed and is refused for what it asks.
	well bool
}

// malformedHeads are requests without a body whose fields are wrong.
func malformedHeads(d harness.Down) map[string]malformed {
	cases := map[string]malformed{
		"late pseudo-field": {fields: append(harness.F(":method", "GET", ":scheme", d.Scheme(), "x-a", "1"), harness.F(":path", "/", ":authority", "a.test")...)},
		"CONNECT":           {fields: harness.F(":method", "CONNECT", ":authority", "a.test:80"), well: true},
		"too many fields":   {fields: append(request(d), repeated("x-a", "1", 300)...), well: true},
		"too many crumbs":   {fields: append(request(d), repeated("cookie", "a=b", 300)...), well: true},
		"too long":          {fields: request(d, "x-a", strings.Repeat("a", 70_000)), well: true},
	}
	for name, pairs := range map[string][]string{
		"upper case name": {"X-Upper", "1"}, "one upper case letter": {"x-uPper", "1"}, "CR in a value": {"x-a", "1\rb"},
		"LF in a value":               {"x-a", "1\nb"},
		"CRLF and a field in a value": {"x-a", "1\r\nx-b: 2"}, "request in a value": {"x-a", "1\r\n\r\n" + smuggled},
		"NUL in a value": {"x-a", "1\x00"},
		"leading space":  {"x-a", " 1"}, "leading tab": {"x-a", "\t1"}, "trailing space": {"x-a", "1 "}, "trailing tab": {"x-a", "1\t"},
		"colon in a name": {"x:a", "1"}, "empty name": {"", "1"}, "space in a name": {"x a", "1"}, "LF in a name": {"x-a\n", "1"},
		"CRLF in a name": {"x-a: 1\r\nx-b", "1"},
		"NUL in a name":  {"x\x00a", "1"}, "DEL in a name": {"x\x7fa", "1"}, "UTF-8 in a name": {"x-\u00e9", "1"},
		"slash in a name": {"x/a", "1"},
		"connection":      {"connection", "close"}, "keep-alive": {"keep-alive", "1"}, "proxy-connection": {"proxy-connection", "close"},
		"transfer-encoding": {"transfer-encoding", "chunked"}, "upgrade": {"upgrade", "websocket"},
		"te other than trailers": {"te", "gzip"},
		"te with more":           {"te", "trailers, gzip"}, "duplicate :path": {":path", "/", ":path", "/other"},
		"duplicate :authority": {":authority", "a.test", ":authority", "b.test"},
		"duplicate :method":    {":method", "GET", ":method", "POST"}, "duplicate :scheme": {":scheme", "http", ":scheme", "https"},
		"unknown pseudo-field": {":x", "1"},
		":status in a request": {":status", "200"}, "no :path": {":path", "-"}, "no :method": {":method", "-"},
		"no :scheme": {":scheme", "-"}, "no authority": {":authority", "-"},
		"empty :method": {":method", ""}, "empty :path": {":path", ""}, "empty :authority": {":authority", ""},
		"empty :scheme": {":scheme", ""}, "relative :path": {":path", "x"},
		"space in :path": {":path", "/a b"}, "request in :path": {":path", "/ HTTP/1.1\r\nHost: x\r\n\r\n"},
		"fragment in :path": {":path", "/a#b"}, "NUL in :path": {":path", "/\x00"},
		"control byte in :path": {":path", "/\x01"}, "DEL in :path": {":path", "/\x7f"}, "absolute :path": {":path", "http://x.test/"},
		"asterisk :path": {":path", "*"},
		":scheme ftp":    {":scheme", "ftp"}, ":scheme with CRLF": {":scheme", "http\r\nx: y"}, ":scheme with a space": {":scheme", "http "},
		":scheme of a URL":        {":scheme", "http://a/"},
		":authority against host": {"host", "other.test"}, "two hosts": {":authority", "-", "host", "a.test", "host", "b.test"},
		"host with userinfo":     {":authority", "-", "host", "u@a.test"},
		"userinfo in :authority": {":authority", "u@a.test"}, "path in :authority": {":authority", "a.test/x"},
		"space in :authority":    {":authority", "a.test b.test"},
		"bad port in :authority": {":authority", "a.test:80a"}, "CRLF in :authority": {":authority", "a.test\r\nx: y"},
		"comma in :authority": {":authority", "a.test,b.test"},
		"space in :method":    {":method", "GET /x"}, "CRLF in :method": {":method", "GET / HTTP/1.1\r\nx: y\r\n\r\nGET"},
		"slash in :method":              {":method", "G/T"},
		"content-length without a body": {"content-length", "5"}, "two content-lengths": {"content-length", "0", "content-length", "1"},
		"content-length with plus":  {"content-length", "+0"},
		"content-length with minus": {"content-length", "-1"}, "content-length in words": {"content-length", "none"},
		"list of content-lengths":    {"content-length", "0, 1"},
		"overflowing content-length": {"content-length", "18446744073709551616"}, "empty content-length": {"content-length", ""},
		":protocol without CONNECT": {":protocol", "websocket"}, "CONNECT with a path": {":method", "CONNECT"},
		"CONNECT without authority":       {":method", "CONNECT", ":authority", "-"},
		"extended CONNECT without a path": {":method", "CONNECT", ":protocol", "websocket", ":path", "-"},
		"empty :protocol":                 {":method", "CONNECT", ":protocol", ""},
		"CRLF in :protocol":               {":method", "CONNECT", ":protocol", "web\r\nsocket"},
	} {
		cases[name] = malformed{fields: request(d, pairs...)}
	}
	for name, pairs := range map[string][]string{
		"TRACE": {":method", "TRACE"}, "expect nonsense": {"expect", "nonsense"}, "climbing :path": {":path", "/../x"},
		"encoded NUL in :path": {":path", "/%00"},
	} {
		cases[name] = malformed{fields: request(d, pairs...), well: true}
	}
	return cases
}

// malformedBodies are requests whose bodies or trailers are wrong.
func malformedBodies(d harness.Down) map[string]malformed {
	post := func(pairs ...string) harness.Fields {
		return request(d, append([]string{":method", "POST"}, pairs...)...)
	}
	cases := map[string]malformed{
		"shorter than content-length":         {fields: post("content-length", "5"), data: []string{"hi"}},
		"longer than content-length":          {fields: post("content-length", "1"), data: []string{"hi"}},
		"much longer than content-length":     {fields: post("content-length", "1"), data: []string{"h", strings.Repeat("i", 1000)}},
		"content-length 0 and a body":         {fields: post("content-length", "0"), data: []string{smuggled}},
		"content-length and an empty body":    {fields: post("content-length", "5"), data: []string{""}},
		"CONNECT with a body":                 {fields: harness.F(":method", "CONNECT", ":authority", "a.test:80"), data: []string{smuggled}, well: true},
		"content-length and trailers alone":   {fields: post("content-length", "5"), trailers: harness.F("x-a", "1")},
		"trailers before content-length ends": {fields: post("content-length", "5"), data: []string{"hi"}, trailers: harness.F("x-a", "1")},
	}
	for name, pairs := range map[string][]string{
		"pseudo-field": {":path", "/x"}, ":status": {":status", "200"}, "upper case": {"X-A", "1"}, "LF in a value": {"x-a", "1\nb"},
		"CRLF in a name": {"x-a\r\nb", "1"},
		"NUL in a value": {"x-a", "\x00"}, "connection": {"connection", "close"}, "transfer-encoding": {"transfer-encoding", "chunked"},
		"empty name": {"", "1"}, "leading space": {"x-a", " 1"},
	} {
		cases["trailers: "+name] = malformed{fields: post(), data: []string{"hi"}, trailers: harness.F(pairs...)}
	}
	return cases
}

func repeated(name, value string, n int) (fields harness.Fields) {
	for range n {
		fields = append(fields, harness.Field{Name: name, Value: value})
	}
	return fields
}

// TestMalformedMessages sends each over a connection that must go on serving.
func TestMalformedMessages(t *testing.T) {
	t.Parallel()
	for _, d := range []harness.Down{harness.H2C, harness.H2, harness.H3} {
		t.Run(string(d), func(t *testing.T) {
			t.Parallel()
			b := newBed(t, d, harness.AnswerOK)
			for _, cases := range []map[string]malformed{malformedHeads(d), malformedBodies(d)} {
				for name, m := range cases {
					before := len(b.origin.Conns())
					r, err := m.send(t, b, d)
					if err == nil && r.Status < 400 {
						t.Errorf("%s: the client got %d %q", name, r.Status, r.Body)
					}
					if err == nil && r.Status >= 500 {
						t.Errorf("%s: a client's malformed message was blamed on the origin: %d", name, r.Status)
					}
					if err != nil && m.well {
						t.Errorf("%s: the client got %v, want an answer that says why", name, err)
					}
					for _, c := range b.origin.Conns()[min(before, len(b.origin.Conns())):] {
						if found, err := messages(c.Bytes()); len(found) > 0 || err != nil && err != errCut {
							t.Errorf("%s: the origin got %q, %v", name, c.Bytes(), err)
						}
					}
				}
			}
			if r, err := harness.Do(b.Client, harness.Request{}); err != nil || r.Status != 200 {
				t.Errorf("an honest request after all: %+v, %v", r, err)
			}
		})
	}
}

// send sends the request on a connection of its own.
func (m malformed) send(t *testing.T, b *bed, d harness.Down) (*harness.Result, error) {
	t.Helper()
	if d == harness.H3 {
		return m.sendH3(t, b)
	}
	conn, err := harness.DialH2(b.options(), d == harness.H2)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	defer time.AfterFunc(harness.Patience, conn.Close).Stop()
	s, err := conn.OpenFields(m.fields, m.data == nil && m.trailers == nil)
	if err != nil {
		t.Fatal(err)
	}
	block := conn.Block(m.trailers)
	// An error of writing is the gateway's answer, which Finish finds.
	_ = conn.Write(func(fr *http2.Framer) error {
		for i, part := range m.data {
			if err := fr.WriteData(1, i == len(m.data)-1 && m.trailers == nil, []byte(part)); err != nil {
				return err
			}
		}
		if m.trailers == nil {
			return nil
		}
		return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})
	})
	return harness.Finish(s)
}

func (m malformed) sendH3(t *testing.T, b *bed) (*harness.Result, error) {
	t.Helper()
	conn, err := harness.DialH3(b.options())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	s, err := conn.OpenFields(m.fields)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range m.data {
		_ = s.Frame(harness.H3Data, []byte(part))
	}
	if m.trailers != nil {
		_ = s.Frame(harness.H3Headers, harness.FieldBlock(m.trailers))
	}
	_ = s.CloseWrite(nil)
	return harness.Finish(s)
}

// options are those of a client of the bed.
func (b *bed) options() harness.ClientOptions {
	tls := harness.ClientTLS(harness.DefaultHost)
	tls.NextProtos = []string{"h2"}
	return harness.ClientOptions{Address: b.Address(), Host: harness.DefaultHost, TLS: tls}
}
