package hostile

import "strings"

// attack is one raw HTTP/1.1 request and what must become of it: by default it is refused with 400, the connection closes and nothing
// reaches the origin.
type attack struct {
	raw string
	// status is another refusal than 400.
	status int
	// forwarded is a part of what the origin must get, for what may pass in its normal form, as one request.
	forwarded string
	// never must not be in what the origin gets, when something may be forwarded.
	never string
	// open says that the request is refused for what it asks, not for how it is written: the connection may go on.
	open bool
}

const (
	get     = "GET / HTTP/1.1\r\nHost: app.example.test\r\n"
	post    = "POST / HTTP/1.1\r\nHost: app.example.test\r\n"
	chunked = post + "Transfer-Encoding: chunked\r\n\r\n"
	// smuggled stands where an origin that frames the message otherwise would find another request.
	smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.example.test\r\n\r\n"
)

// attacks returns every attack of the tables by name.
func attacks() map[string]attack {
	all := map[string]attack{}
	for group, cases := range map[string]map[string]attack{
		"length": lengths(), "coding": codings(), "chunk": chunkLines(), "line": requestLines(), "field": fieldLines(), "host": hosts(),
		"trailer": trailers(), "ask": asks(),
	} {
		for name, a := range cases {
			all[group+"/"+name] = a
		}
	}
	return all
}

// lengths are attacks by Content-Length (RFC 9112 6.2, 6.3).
func lengths() map[string]attack {
	cases := map[string]attack{
		"before chunked":        {raw: post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled},
		"after chunked":         {raw: post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled},
		"0 with chunked":        {raw: post + "Content-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled},
		"with unknown coding":   {raw: post + "Content-Length: 5\r\nTransfer-Encoding: xchunked\r\n\r\nhello" + smuggled},
		"two":                   {raw: post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"},
		"two, one of them zero": {raw: post + "Content-Length: 0\r\nContent-Length: 50\r\n\r\n" + smuggled},
		"two spellings":         {raw: post + "Content-Length: 5\r\nContent-Length: 05\r\n\r\nhello", forwarded: "Content-Length: 5\r\n"},
		"list of two":           {raw: post + "Content-Length: 5, 6\r\n\r\nhello!"},
		"list of one twice":     {raw: post + "Content-Length: 5, 5\r\n\r\nhello"},
		"the same twice":        {raw: post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", forwarded: "Content-Length: 5\r\n"},
		"leading zeros":         {raw: post + "Content-Length: 005\r\n\r\nhello", forwarded: "Content-Length: 5\r\n"},
	}
	for name, value := range map[string]string{
		"with plus": "+5", "with minus": "-5", "in hex": "0x5", "with underscore": "1_0", "with inner space": "1 0", "empty": "",
		"with decimals":       "5.0",
		"overflowing 64 bits": "18446744073709551621", "overflowing 63 bits": "9223372036854775808", "with an exponent": "5e0",
		"with letters": "5a", "quoted": "\"5\"", "with a parameter": "5;a=b", "comma before": ",5", "comma behind": "5,",
		"Arabic digits":       "\u0665",
		"vertical tab behind": "5\x0b", "NUL behind": "5\x00", "of forty digits": strings.Repeat("1", 40),
	} {
		cases[name] = attack{raw: post + "Content-Length: " + value + "\r\n\r\nhello" + smuggled}
	}
	return cases
}

// codings are attacks by Transfer-Encoding (RFC 9112 6.1).
func codings() map[string]attack {
	cases := map[string]attack{
		"in HTTP/1.0":        {raw: "POST / HTTP/1.0\r\nHost: app.example.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"twice":              {raw: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"and identity twice": {raw: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n"},
		"space before colon": {raw: post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
		"tab before colon":   {raw: post + "Transfer-Encoding\t: chunked\r\n\r\n0\r\n\r\n"},
		"folded":             {raw: post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n"},
		"folded behind":      {raw: post + "Transfer-Encoding: chunked\r\n , identity\r\n\r\n0\r\n\r\n"},
		"behind a bare LF":   {raw: post + "X-A: b\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"behind a bare CR":   {raw: post + "X-A: b\rTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"underscore":         {raw: post + "Transfer_Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", forwarded: "Content-Length: 5\r\n"},
		"prefixed name":      {raw: post + "X-Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n", forwarded: "Content-Length: 5\r\n"},
	}
	for name, value := range map[string]string{
		"gzip, chunked": "gzip, chunked", "chunked, identity": "chunked, identity", "identity": "identity",
		"chunked, chunked": "chunked, chunked",
		"xchunked":         "xchunked", "vertical tab before": "\x0bchunked", "vertical tab behind": "chunked\x0b", "NUL behind": "chunked\x00",
		"NUL within": "chu\x00nked", "quoted": "\"chunked\"", "with a parameter": "chunked;a=b", "space behind": "chunked ",
		"tab behind": "chunked\t",
		"tab before": "\tchunked", "comma before": ", chunked", "comma behind": "chunked,", "another case": "Chunked", "empty": "",
		"long s":     "chun\u212aed",
		"DEL behind": "chunked\x7f", "cow": "cow", "semicolon": "chunked;", "UTF-8 space": "chunked\u00a0",
	} {
		cases[name] = attack{raw: post + "Transfer-Encoding: " + value + "\r\n\r\n0\r\n\r\n" + smuggled}
	}
	return cases
}

// chunkLines are attacks within a chunked body (RFC 9112 7.1). The request's head may have reached the origin by then; its end must not.
func chunkLines() map[string]attack {
	cases := map[string]attack{}
	for name, body := range map[string]string{
		"size with plus": "+5\r\nhello\r\n0\r\n\r\n", "size with minus": "-5\r\nhello\r\n0\r\n\r\n",
		"size with 0x":         "0x5\r\nhello\r\n0\r\n\r\n",
		"size with underscore": "0_5\r\nhello\r\n0\r\n\r\n", "size of 17 digits": "00000000000000005\r\nhello\r\n0\r\n\r\n",
		"size of 64 bits": "ffffffffffffffff\r\nhello\r\n0\r\n\r\n", "size that overflows": "10000000000000005\r\nhello\r\n0\r\n\r\n",
		"empty size": "\r\nhello\r\n0\r\n\r\n", "size that is none": "g\r\nhello\r\n0\r\n\r\n",
		"space before size": " 5\r\nhello\r\n0\r\n\r\n",
		"space behind size": "5 \r\nhello\r\n0\r\n\r\n", "tab behind size": "5\t\r\nhello\r\n0\r\n\r\n",
		"NUL behind size":     "5\x00\r\nhello\r\n0\r\n\r\n",
		"no CRLF behind data": "5\r\nhelloXX0\r\n\r\n", "LF behind data": "5\r\nhello\n0\r\n\r\n",
		"CR behind data":       "5\r\nhello\r0\r\n\r\n",
		"two CRLF behind data": "5\r\nhello\r\n\r\n0\r\n\r\n", "longer than its size": "4\r\nhello\r\n0\r\n\r\n",
		"shorter than its size": "6\r\nhello\r\n0\r\n\r\n",
		"LF behind size":        "5\nhello\r\n0\r\n\r\n", "CR behind size": "5\rhello\r\n0\r\n\r\n", "LF in extension": "5;a\nhello\r\n0\r\n\r\n",
		"CR in extension": "5;a\rb\r\nhello\r\n0\r\n\r\n", "NUL in extension": "5;a=\x00\r\nhello\r\n0\r\n\r\n",
		"CR CR LF behind size":    "5\r\r\nhello\r\n0\r\n\r\n",
		"LF behind the last size": "5\r\nhello\r\n0\n\r\n", "LF in a quoted extension": "5;a=\"\n\"\r\nhello\r\n0\r\n\r\n",
		"CR and no LF behind data": "5\r\nhello\rX0\r\n\r\n", "LF and no CR behind data": "5\r\nhelloX\n0\r\n\r\n",
		"CR and no LF behind size":          "5\rXhello\r\n0\r\n\r\n",
		"CR and no LF behind the last size": "5\r\nhello\r\n0\rX\r\n",
		"long extension":                    "5;" + strings.Repeat("a", 100_000) + "\r\nhello\r\n0\r\n\r\n",
		"many extensions":                   strings.Repeat("1;"+strings.Repeat("a", 1000)+"\r\nx\r\n", 200) + "0\r\n\r\n",
		"end within data":                   "5\r\nhel", "no last chunk": "5\r\nhello\r\n",
		"end within the last chunk": "5\r\nhello\r\n0\r\n",
	} {
		cases[name] = attack{raw: chunked + body}
	}
	for _, name := range []string{"end within data", "no last chunk", "end within the last chunk"} {
		cases[name] = attack{raw: cases[name].raw, status: 408} // it never comes: the time limit ends it
	}
	cases["short extension"] = attack{raw: chunked + "5;a=b;c=\"d\"\r\nhello\r\n0;e\r\n\r\n", forwarded: "hello", never: ";a"}
	return cases
}

// requestLines are attacks by the first line (RFC 9112 3).
func requestLines() map[string]attack {
	cases := map[string]attack{}
	for name, line := range map[string]string{
		"HTTP/1.2": "GET / HTTP/1.2", "HTTP/2.0": "GET / HTTP/2.0", "HTTP/1.10": "GET / HTTP/1.10", "HTTP/01.1": "GET / HTTP/01.1",
		"HTTP/1":                 "GET / HTTP/1",
		"HTTP/1.1 in lower case": "GET / http/1.1", "another protocol": "GET / RTSP/1.0", "HTTP/0.9": "GET /",
		"HTTP/0.9 in words": "GET / HTTP/0.9",
		"no target":         "GET HTTP/1.1", "two targets": "GET / /x HTTP/1.1", "two spaces": "GET  / HTTP/1.1",
		"two spaces before the version": "GET /  HTTP/1.1",
		"space at the end":              "GET / HTTP/1.1 ", "space at the start": " GET / HTTP/1.1", "tab after the method": "GET\t/ HTTP/1.1",
		"tab before the version": "GET /\tHTTP/1.1",
		"vertical tab":           "GET\x0b/ HTTP/1.1", "method that is no token": "GE(T / HTTP/1.1", "no method": " / HTTP/1.1",
		"UTF-8 in the method": "G\u00c9T / HTTP/1.1",
		"fragment":            "GET /a#b HTTP/1.1", "fragment in the query": "GET /a?b#c HTTP/1.1",
		"control byte in the target": "GET /a\x01b HTTP/1.1",
		"NUL in the target":          "GET /a\x00b HTTP/1.1", "DEL in the target": "GET /a\x7fb HTTP/1.1", "CR in the target": "GET /a\rb HTTP/1.1",
		"UTF-8 in the target": "GET /caf\u00e9 HTTP/1.1", "authority form": "GET app.example.test:80 HTTP/1.1",
		"asterisk":        "GET * HTTP/1.1",
		"relative target": "GET x HTTP/1.1", "backslash first": "GET \\x HTTP/1.1", "query alone": "GET ?x HTTP/1.1",
		"unknown scheme": "GET ftp://app.example.test/ HTTP/1.1", "no scheme": "GET //app.example.test:80a HTTP/1.1x",
		"scheme alone":          "GET http: HTTP/1.1",
		"scheme without a host": "GET http:/// HTTP/1.1", "absolute form of another host": "GET http://other.test/ HTTP/1.1",
		"absolute form of another port":  "GET http://app.example.test:81/ HTTP/1.1",
		"absolute form with userinfo":    "GET http://u@app.example.test/ HTTP/1.1",
		"absolute form with a bad port":  "GET http://app.example.test:8x/ HTTP/1.1",
		"absolute form with a backslash": "GET http://app.example.test\\@other.test/ HTTP/1.1",
		"absolute form with a fragment":  "GET http://app.example.test/#a HTTP/1.1",
	} {
		cases[name] = attack{raw: line + "\r\nHost: app.example.test\r\n\r\n"}
	}
	for name, raw := range map[string]string{
		"bare LF":                      "GET / HTTP/1.1\nHost: app.example.test\n\n",
		"bare LF after the first line": "GET / HTTP/1.1\nHost: app.example.test\r\n\r\n",
		"bare CR":                      "GET / HTTP/1.1\rHost: app.example.test\r\r", "CR CR LF": "GET / HTTP/1.1\r\r\nHost: app.example.test\r\n\r\n",
		"HTTP/0.9 and nothing more": "GET /\r\n\r\n", "TLS on a plain port": "\x16\x03\x01\x00\xa5\x01\x00\x00\xa1\x03\x03\r\n\r\n",
		"the preface of HTTP/2 with another end": "PRI * HTTP/2.0\r\n\r\nSX\r\n\r\n",
		"PROXY header":                           "PROXY TCP4 6.6.6.6 6.6.6.6 1 2\r\n" + get + "\r\n",
	} {
		cases[name] = attack{raw: raw}
	}
	cases["absolute form of the host"] = attack{raw: "GET http://app.example.test/x?y HTTP/1.1\r\nHost: app.example.test\r\n\r\n", forwarded: "GET /x?y HTTP/1.1\r\n"}
	cases["absolute form without a path"] = attack{raw: "GET http://app.example.test?y HTTP/1.1\r\nHost: app.example.test\r\n\r\n", forwarded: "GET /?y HTTP/1.1\r\n"}
	cases["empty line before it"] = attack{raw: "\r\n" + get + "\r\n", forwarded: "GET / HTTP/1.1\r\n"} // RFC 9112 2.2
	cases["UTF-8 in the target"] = attack{raw: cases["UTF-8 in the target"].raw, open: true}
	return cases
}

// fieldLines are attacks by field lines (RFC 9112 5).
func fieldLines() map[string]attack {
	cases := map[string]attack{}
	for name, lines := range map[string]string{
		"folded": "X-A: 1\r\n folded", "folded with a tab": "X-A: 1\r\n\tfolded", "fold of nothing": "X-A: 1\r\n ",
		"bare LF": "X-A: 1\nX-B: 2",
		"LF CR":   "X-A: 1\n\rX-B: 2", "bare CR": "X-A: 1\rX-B: 2", "CR before CRLF": "X-A: 1\r", "NUL": "X-A: 1\x00",
		"NUL in the name": "X\x00A: 1", "control byte": "X-A: \x01",
		"vertical tab": "X-A: \x0b1", "DEL": "X-A: \x7f", "escape": "X-A: \x1b[2J", "empty name": ": 1", "name with a space": "X A: 1",
		"name with a slash": "X/A: 1", "name with UTF-8": "X-\u00e9: 1",
		"name in quotes": "\"X-A\": 1", "name with brackets": "X[A]: 1", "space before colon": "X-A : 1", "tab before colon": "X-A\t: 1",
		"no colon": "X-A", "empty line of spaces": "  ",
		"request in a value": "X-A: 1\r\n\r\n" + "GET /smuggled HTTP/1.1\nHost: a",
	} {
		cases[name] = attack{raw: get + lines + "\r\n\r\n"}
	}
	cases["request in a value"] = attack{raw: get + "X-A: 1\n\nGET /smuggled HTTP/1.1\nHost: app.example.test\n\n"}
	cases["fold before the first"] = attack{raw: "GET / HTTP/1.1\r\n Host: app.example.test\r\n\r\n"}
	cases["too many"] = attack{raw: get + strings.Repeat("X-A: 1\r\n", 201) + "\r\n", status: 431}
	cases["too long"] = attack{raw: get + "X-A: " + strings.Repeat("a", 70_000) + "\r\n\r\n", status: 431}
	cases["name too long"] = attack{raw: get + strings.Repeat("a", 70_000) + ": 1\r\n\r\n", status: 431}
	cases["no end of lines"] = attack{raw: "GET /" + strings.Repeat("a", 70_000), status: 431}
	cases["too many crumbs"] = attack{raw: get + strings.Repeat("Cookie: a=b\r\n", 300) + "\r\n", status: 431}
	cases["obs-text in a value"] = attack{raw: get + "X-A: caf\xe9\r\n\r\n", forwarded: "X-A: caf\xe9\r\n"}
	cases["hop-by-hop by Connection"] = attack{raw: get + "Connection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n\r\n", forwarded: "X-End: 1", never: "X-Hop"}
	cases["Connection naming Host"] = attack{raw: get + "Connection: Host, X-Forwarded-For\r\n\r\n", forwarded: "Host: app.example.test"}
	cases["Connection naming the framing"] = attack{raw: post + "Connection: Content-Length\r\nContent-Length: 5\r\n\r\nhello", forwarded: "Content-Length: 5\r\n"}
	cases["Connection naming Authorization"] = attack{raw: get + "Connection: Authorization\r\nAuthorization: Bearer a\r\n\r\n", forwarded: "Authorization: Bearer a"}
	return cases
}

// hosts are attacks by Host (RFC 9112 3.2).
func hosts() map[string]attack {
	cases := map[string]attack{
		"none":              {raw: "GET / HTTP/1.1\r\n\r\n"},
		"two":               {raw: get + "Host: other.test\r\n\r\n"},
		"the same twice":    {raw: get + "Host: app.example.test\r\n\r\n"},
		"two around others": {raw: get + "X-A: 1\r\nhOST: other.test\r\n\r\n"},
	}
	for name, host := range map[string]string{
		"userinfo": "user@app.example.test", "bad port": "app.example.test:80a", "port out of range": "app.example.test:65536",
		"negative port": "app.example.test:-1",
		"two ports":     "app.example.test:80:80", "path": "app.example.test/x", "query": "app.example.test?x",
		"fragment": "app.example.test#x", "list": "app.example.test, other.test",
		"space": "app.example.test other.test", "scheme": "http://app.example.test", "backslash": "app.example.test\\other.test",
		"NUL":            "app.example.test\x00.other.test",
		"angle brackets": "<script>", "quotes": "\"app.example.test\"", "open bracket": "[::1", "name in brackets": "[app.example.test]",
		"comma": "app.example.test,", "empty": "",
		"port alone": ":80", "percent-encoded": "app%2eexample.test%00", "UTF-8": "\u00e4pp.example.test",
	} {
		cases[name] = attack{raw: "GET / HTTP/1.1\r\nHost: " + host + "\r\n\r\n"}
	}
	return cases
}

// trailers are attacks by what follows a chunked body (RFC 9112 7.1.2, RFC 9110 6.5).
func trailers() map[string]attack {
	cases := map[string]attack{
		"that frame, route or identify": {raw: post + "Trailer: X-Sum, Host, Authorization\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nHost: evil\r\n" +
			"Authorization: evil\r\nX-Forwarded-For: evil\r\nx_forwarded_for: evil\r\nX.Forwarded.Host: evil\r\nForwarded: for=evil\r\nX-Request-Id: evil\r\nX-Envoy-A: evil\r\n" +
			"Content-Length: 9\r\nTransfer-Encoding: evil\r\nConnection: evil\r\nCookie: evil\r\nContent-Type: evil\r\nTE: evil\r\nUpgrade: evil\r\nExpect: evil\r\n" +
			"Trailer: evil\r\nKeep-Alive: evil\r\nProxy-Connection: evil\r\nProxy-Authorization: evil\r\ntraceparent: evil\r\n\r\n", forwarded: "X-Sum: 1", never: "evil"},
		"too many": {raw: chunked + "2\r\nhi\r\n0\r\n" + strings.Repeat("X-A: 1\r\n", 300) + "\r\n", status: 431},
		"too long": {raw: chunked + "2\r\nhi\r\n0\r\nX-A: " + strings.Repeat("a", 70_000) + "\r\n\r\n", status: 431},
	}
	for name, lines := range map[string]string{
		"bare LF": "X-A: 1\n", "bare CR": "X-A: 1\rX-B: 2\r\n", "folded": "X-A: 1\r\n folded\r\n", "space before colon": "X-A : 1\r\n",
		"no colon": "X-A\r\n", "empty name": ": 1\r\n",
		"NUL": "X-A: \x00\r\n", "name with a space": "X A: 1\r\n",
		"request in its place": "GET /smuggled HTTP/1.1\r\nHost: app.example.test\r\n",
	} {
		cases[name] = attack{raw: chunked + "2\r\nhi\r\n0\r\n" + lines + "\r\n"}
	}
	return cases
}

// asks are requests that are written well and ask for what no client gets, and some that look odd and are right.
func asks() map[string]attack {
	manyParameters := strings.Repeat("a=1&", 10_000)
	return map[string]attack{
		"CONNECT":                    {raw: "CONNECT app.example.test:80 HTTP/1.1\r\nHost: app.example.test:80\r\n\r\n" + smuggled, status: 405},
		"CONNECT with a body":        {raw: "CONNECT app.example.test:80 HTTP/1.1\r\nHost: app.example.test:80\r\nContent-Length: 50\r\n\r\n" + smuggled, status: 405},
		"CONNECT with a path":        {raw: "CONNECT / HTTP/1.1\r\nHost: app.example.test\r\n\r\n" + smuggled},
		"TRACE":                      {raw: "TRACE / HTTP/1.1\r\nHost: app.example.test\r\nCookie: a=b\r\n\r\n", status: 405, open: true},
		"Expect nonsense":            {raw: get + "Expect: 200-nonsense\r\n\r\n", status: 417, open: true},
		"Expect twice":               {raw: get + "Expect: 100-continue, 100-continue\r\n\r\n", status: 417, open: true},
		"Expect nonsense and a body": {raw: post + "Expect: nonsense\r\nContent-Length: 50\r\n\r\n" + smuggled, status: 417, open: true},
		"encoded NUL":                {raw: "GET /%00 HTTP/1.1\r\nHost: app.example.test\r\n\r\n", open: true},
		"climbing path":              {raw: "GET /../x HTTP/1.1\r\nHost: app.example.test\r\n\r\n", open: true},
		"climbing path, encoded":     {raw: "GET /%2e%2e/x HTTP/1.1\r\nHost: app.example.test\r\n\r\n", open: true},
		"bad escape in the path":     {raw: "GET /%zz HTTP/1.1\r\nHost: app.example.test\r\n\r\n", open: true},
		"query passes as it is":      {raw: "GET /?a;b&%zz=1&c[]=%00 HTTP/1.1\r\nHost: app.example.test\r\n\r\n", forwarded: "GET /?a;b&%zz=1&c[]=%00 HTTP/1.1\r\n"},
		"ten thousand parameters":    {raw: "GET /?" + manyParameters + " HTTP/1.1\r\nHost: app.example.test\r\n\r\n", forwarded: "GET /?" + manyParameters + " HTTP/1.1\r\n"},
		"forged forwarding fields": {raw: get + "X-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX.Forwarded.For: 6.6.6.6\r\nForwarded: for=6.6.6.6\r\n" +
			"X-Envoy-External-Address: 6.6.6.6\r\nx-REQUEST-id: 6.6.6.6\r\nX-Real-Ip: 6.6.6.6\r\nX-End: 1\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n", forwarded: "X-End: 1", never: "6.6.6.6"},
		"forwarding fields named by Connection": {raw: get + "Connection: X-Forwarded-Proto, X-Request-Id\r\nX-End: 1\r\n\r\n", forwarded: "X-Forwarded-Proto: http"},
		"Upgrade with a body":                   {raw: post + "Connection: Upgrade\r\nUpgrade: websocket\r\nContent-Length: 50\r\n\r\n" + smuggled, status: 400},
		"Upgrade with chunks":                   {raw: post + "Connection: Upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, status: 400},
		"HTTP/1.0":                              {raw: "GET / HTTP/1.0\r\nHost: app.example.test\r\n\r\n", forwarded: "GET / HTTP/1.1\r\nHost: app.example.test\r\n"},
	}
}
