// Package hostile sends what no honest client sends and judges the gateway by the bytes that reach the origin, not by the status
// alone: a request that is refused but forwarded did its harm.
package hostile

import (
	"strings"
	"testing"
	"time"

	"gatehouse.dev/gatehouse/test/harness"
)

func TestMain(m *testing.M) { harness.Main(m) }

// attack is one raw HTTP/1.1 request and what must become of it: by default it is refused, the connection closes and nothing reaches
// the origin.
type attack struct {
	raw string
	// forwarded is a part of what the origin must get, for what may pass in its normal form.
	forwarded string
	// never must not be in what the origin gets, when something may be forwarded.
	never string
	// knownForwarded says why a request that should be refused is forwarded for now. The test holds that state, too: it fails when
	// the request is refused, so that the entry goes when its reason does.
	knownForwarded string
}

const (
	get  = "GET / HTTP/1.1\r\nHost: app.example.test\r\n"
	post = "POST / HTTP/1.1\r\nHost: app.example.test\r\n"
	// smuggled stands where an origin that frames the message otherwise would find another request.
	smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.example.test\r\n\r\n"
)

func framing() map[string]attack {
	cases := map[string]attack{
		"length then chunked":        {raw: post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, knownForwarded: "net/http drops Content-Length and forwards the chunked body"},
		"chunked then length":        {raw: post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled, knownForwarded: "net/http drops Content-Length and forwards the chunked body"},
		"chunked in HTTP/1.0":        {raw: "POST / HTTP/1.0\r\nHost: app.example.test\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", knownForwarded: "net/http ignores Transfer-Encoding in HTTP/1.0 and forwards no body"},
		"gzip, chunked":              {raw: post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n"},
		"chunked, identity":          {raw: post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n"},
		"identity":                   {raw: post + "Transfer-Encoding: identity\r\n\r\n"},
		"chunked twice":              {raw: post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n"},
		"chunked, chunked":           {raw: post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n"},
		"xchunked":                   {raw: post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n"},
		"chunked with vertical tab":  {raw: post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n"},
		"chunked quoted":             {raw: post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n"},
		"chunked with a parameter":   {raw: post + "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n"},
		"space before colon":         {raw: post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n"},
		"folded encoding":            {raw: post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", knownForwarded: "net/http joins folded lines; what is forwarded is one line"},
		"folded field":               {raw: get + "X-A: 1\r\n folded\r\n\r\n", knownForwarded: "net/http joins folded lines; what is forwarded is one line"},
		"two lengths":                {raw: post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!"},
		"list of two lengths":        {raw: post + "Content-Length: 5, 6\r\n\r\nhello!"},
		"same length twice":          {raw: post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello", forwarded: "hello"},
		"list of one length":         {raw: post + "Content-Length: 5, 5\r\n\r\nhello"},
		"length with plus":           {raw: post + "Content-Length: +5\r\n\r\nhello"},
		"length with minus":          {raw: post + "Content-Length: -5\r\n\r\nhello"},
		"length in hex":              {raw: post + "Content-Length: 0x5\r\n\r\nhello"},
		"length with underscore":     {raw: post + "Content-Length: 1_0\r\n\r\nhellohello"},
		"length with inner space":    {raw: post + "Content-Length: 1 0\r\n\r\nhellohello"},
		"empty length":               {raw: post + "Content-Length:\r\n\r\n" + smuggled},
		"overflowing length":         {raw: post + "Content-Length: 18446744073709551621\r\n\r\nhello"},
		"length with decimals":       {raw: post + "Content-Length: 5.0\r\n\r\nhello"},
		"chunk size with plus":       {raw: post + "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n"},
		"chunk size with 0x":         {raw: post + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n"},
		"chunk size with underscore": {raw: post + "Transfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\n"},
		"chunk size of 17 digits":    {raw: post + "Transfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n"},
		"empty chunk size":           {raw: post + "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n"},
		"no CRLF after chunk":        {raw: post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n"},
		"bare LF after chunk size":   {raw: post + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n"},
		"bare LF in chunk extension": {raw: post + "Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n"},
		"bare CR in chunk extension": {raw: post + "Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n"},
		"long chunk extension":       {raw: post + "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 100_000) + "\r\nhello\r\n0\r\n\r\n"},
	}
	return cases
}

func heads() map[string]attack {
	return map[string]attack{
		"bare LF":                     {raw: "GET / HTTP/1.1\nHost: app.example.test\n\n", knownForwarded: "net/http ends lines at LF"},
		"bare LF in fields":           {raw: get + "X-A: 1\nX-B: 2\r\n\r\n", knownForwarded: "net/http ends lines at LF"},
		"bare CR in a value":          {raw: get + "X-A: 1\rX-B: 2\r\n\r\n"},
		"NUL in a value":              {raw: get + "X-A: 1\x00\r\n\r\n"},
		"control byte in a value":     {raw: get + "X-A: \x01\r\n\r\n"},
		"DEL in a value":              {raw: get + "X-A: \x7f\r\n\r\n"},
		"empty name":                  {raw: get + ": 1\r\n\r\n"},
		"name with a space":           {raw: get + "X A: 1\r\n\r\n"},
		"name with a slash":           {raw: get + "X/A: 1\r\n\r\n"},
		"name with UTF-8":             {raw: get + "X-\u00e9: 1\r\n\r\n"},
		"tab before colon":            {raw: get + "X-A\t: 1\r\n\r\n"},
		"no colon":                    {raw: get + "X-A\r\n\r\n"},
		"space before the first name": {raw: "GET / HTTP/1.1\r\n Host: app.example.test\r\n\r\n"},
		"HTTP/0.9":                    {raw: "GET /\r\n\r\n"},
		"HTTP/1.2":                    {raw: "GET / HTTP/1.2\r\nHost: app.example.test\r\n\r\n", knownForwarded: "net/http serves every HTTP/1.x"},
		"HTTP/2.0 in text":            {raw: "GET / HTTP/2.0\r\nHost: app.example.test\r\n\r\n"},
		"HTTP/1.10":                   {raw: "GET / HTTP/1.10\r\nHost: app.example.test\r\n\r\n"},
		"http/1.1 in lower case":      {raw: "GET / http/1.1\r\nHost: app.example.test\r\n\r\n"},
		"two spaces":                  {raw: "GET  / HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"trailing space":              {raw: "GET / HTTP/1.1 \r\nHost: app.example.test\r\n\r\n"},
		"tab in the request line":     {raw: "GET\t/ HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"method that is no token":     {raw: "GE(T / HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"no host":                     {raw: "GET / HTTP/1.1\r\n\r\n"},
		"two hosts":                   {raw: "GET / HTTP/1.1\r\nHost: app.example.test\r\nHost: other.test\r\n\r\n"},
		"the same host twice":         {raw: "GET / HTTP/1.1\r\nHost: app.example.test\r\nHost: app.example.test\r\n\r\n"},
		"userinfo in host":            {raw: "GET / HTTP/1.1\r\nHost: user@app.example.test\r\n\r\n"},
		"bad port":                    {raw: "GET / HTTP/1.1\r\nHost: app.example.test:80a\r\n\r\n"},
		"port out of range":           {raw: "GET / HTTP/1.1\r\nHost: app.example.test:65536\r\n\r\n"},
		"path in host":                {raw: "GET / HTTP/1.1\r\nHost: app.example.test/x\r\n\r\n"},
		"list in host":                {raw: "GET / HTTP/1.1\r\nHost: app.example.test, other.test\r\n\r\n"},
		"space in host":               {raw: "GET / HTTP/1.1\r\nHost: app.example.test other.test\r\n\r\n"},
		"absolute form of another host": {raw: "GET http://other.test/ HTTP/1.1\r\nHost: app.example.test\r\n\r\n",
			knownForwarded: "net/http takes the target's host for Host and hides the disagreement"},
		"absolute form of the host": {raw: "GET http://app.example.test/x?y HTTP/1.1\r\nHost: app.example.test\r\n\r\n", forwarded: "GET /x?y HTTP/1.1\r\n"},
		"absolute form with userinfo": {raw: "GET http://u@app.example.test/ HTTP/1.1\r\nHost: app.example.test\r\n\r\n",
			knownForwarded: "net/http drops the target's userinfo"},
		"unknown scheme":            {raw: "GET ftp://app.example.test/ HTTP/1.1\r\nHost: app.example.test\r\n\r\n", knownForwarded: "net/http ignores the target's scheme"},
		"fragment":                  {raw: "GET /a#b HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"fragment in the query":     {raw: "GET /a?b#c HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"control byte in target":    {raw: "GET /a\x01b HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"UTF-8 in target":           {raw: "GET /caf\u00e9 HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"authority form":            {raw: "GET app.example.test:80 HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"CONNECT":                   {raw: "CONNECT app.example.test:80 HTTP/1.1\r\nHost: app.example.test:80\r\n\r\n" + smuggled, never: "CONNECT"},
		"TRACE":                     {raw: "TRACE / HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"Expect nonsense":           {raw: get + "Expect: 200-nonsense\r\n\r\n"},
		"encoded NUL":               {raw: "GET /%00 HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"climbing path":             {raw: "GET /../x HTTP/1.1\r\nHost: app.example.test\r\n\r\n"},
		"query passes as it is":     {raw: "GET /?a;b&%zz=1&c[]=%00 HTTP/1.1\r\nHost: app.example.test\r\n\r\n", forwarded: "GET /?a;b&%zz=1&c[]=%00 HTTP/1.1\r\n"},
		"hop-by-hop by Connection":  {raw: get + "Connection: X-Hop\r\nX-Hop: 1\r\nX-End: 1\r\n\r\n", forwarded: "X-End: 1", never: "X-Hop"},
		"Connection naming Host":    {raw: get + "Connection: Host, X-Forwarded-For\r\n\r\n", forwarded: "Host: app.example.test"},
		"spoofed forwarding fields": {raw: get + "X-Forwarded-For: 6.6.6.6\r\nx_forwarded_for: 6.6.6.6\r\nX-End: 1\r\n\r\n", forwarded: "X-End: 1", never: "6.6.6.6"},
		"dangerous trailers": {raw: post + "Trailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 1\r\nHost: evil\r\nAuthorization: evil\r\nX-Forwarded-For: evil\r\nContent-Length: 9\r\n\r\n",
			forwarded: "hi", never: "evil"},
	}
}

func TestHTTP1(t *testing.T) {
	t.Parallel()
	for group, cases := range map[string]map[string]attack{"framing": framing(), "head": heads()} {
		for name, a := range cases {
			t.Run(group+"/"+name, func(t *testing.T) {
				t.Parallel()
				a.run(t)
			})
		}
	}
}

// quiet is how long the gateway may keep a refused connection open without a word.
const quiet = 250 * time.Millisecond

func (a attack) run(t *testing.T) {
	origin := harness.NewRecorder(t, harness.AnswerOK)
	cluster := harness.Cluster("recorder", harness.UpH1, origin.Addr)
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, nil, func(o *harness.EnvOptions) { o.Backend = cluster })
	answer, _ := harness.Raw(env.Address(), a.raw, quiet)
	reached := origin.Bytes()
	if a.knownForwarded == "" && a.forwarded == "" && strings.HasPrefix(a.raw, post) && !complete(reached) {
		reached = "" // a head whose malformed body was cut off is no request
	}
	switch {
	case a.forwarded != "":
		if !strings.Contains(reached, a.forwarded) {
			t.Errorf("the origin got %q, want it to hold %q; the client got %.60q", reached, a.forwarded, answer)
		}
		if a.never != "" && strings.Contains(reached, a.never) {
			t.Errorf("the origin got %q in %q", a.never, reached)
		}
	case a.knownForwarded != "":
		if reached == "" {
			t.Errorf("refused with %.60q: take knownForwarded out of the table (%s)", answer, a.knownForwarded)
		}
		if strings.Count(reached, "HTTP/1.1\r\n") > 1 && !strings.Contains(a.raw, "smuggled") {
			t.Errorf("the origin got more than one request: %q", reached)
		}
	default:
		if reached != "" {
			t.Errorf("the origin got %q; the client got %.60q", reached, answer)
		}
		if !strings.HasPrefix(answer, "HTTP/1.1 4") && !strings.HasPrefix(answer, "HTTP/1.1 5") && answer != "" {
			t.Errorf("the client got %.80q, want a refusal", answer)
		}
		if strings.HasPrefix(answer, "HTTP/1.1 502") {
			t.Errorf("a client's malformed message was blamed on the origin: %.80q", answer)
		}
	}
}

// complete reports whether the recorded bytes hold a whole request: one whose chunked body came to its end.
func complete(recorded string) bool {
	head, body, ok := strings.Cut(recorded, "\r\n\r\n")
	if !ok {
		return false
	}
	if strings.Contains(head, "Transfer-Encoding: chunked") {
		return strings.HasSuffix(body, "0\r\n\r\n")
	}
	return true
}
