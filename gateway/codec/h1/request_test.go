package h1

import (
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

const (
	get  = "GET / HTTP/1.1\r\nHost: app.example.test\r\n"
	post = "POST / HTTP/1.1\r\nHost: app.example.test\r\n"
	// smuggled stands where a reader that frames the message otherwise would find another request.
	smuggled = "GET /smuggled HTTP/1.1\r\nHost: app.example.test\r\n\r\n"
)

// firstError reads requests with their bodies until something fails.
func firstError(raw string) (requests int, err error) {
	var r Reader
	r.Init(strings.NewReader(raw), nil, Limits{})
	defer r.Release()
	var head exchange.Head
	var m Message
	for {
		if err := r.ReadRequest(&head, &m); err != nil {
			return requests, err
		}
		requests++
		if _, err := io.ReadAll(&r); err != nil {
			return requests, err
		}
		r.Next()
	}
}

func TestRefusedRequests(t *testing.T) {
	line := func(s string) string { return s + "\r\nHost: app.example.test\r\n\r\n" }
	tests := map[string]struct {
		raw  string
		want problem
	}{
		// RFC 9112 6: where does the body end?
		"length then chunked":        {post + "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, badFraming},
		"chunked then length":        {post + "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n" + smuggled, badFraming},
		"chunked and length 0":       {post + "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n0\r\n\r\n", badFraming},
		"chunked in HTTP/1.0":        {"POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", badOldEncoding},
		"gzip, chunked":              {post + "Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", badEncoding},
		"chunked, identity":          {post + "Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n", badEncoding},
		"identity":                   {post + "Transfer-Encoding: identity\r\n\r\n", badEncoding},
		"empty encoding":             {post + "Transfer-Encoding:\r\n\r\n", badEncoding},
		"chunked twice":              {post + "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", badEncodings},
		"chunked, then identity":     {post + "Transfer-Encoding: chunked\r\ntransfer-encoding: identity\r\n\r\n0\r\n\r\n", badEncodings},
		"chunked, chunked":           {post + "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", badEncoding},
		"xchunked":                   {post + "Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n", badEncoding},
		"chunkedx":                   {post + "Transfer-Encoding: chunkedx\r\n\r\n0\r\n\r\n", badEncoding},
		"Chunked":                    {post + "Transfer-Encoding: Chunked\r\n\r\n0\r\n\r\n", badEncoding},
		"chunked with a comma":       {post + "Transfer-Encoding: chunked,\r\n\r\n0\r\n\r\n", badEncoding},
		"chunked behind a tab":       {post + "Transfer-Encoding:\tchunked\r\n\r\n0\r\n\r\n", badEncoding},
		"chunked behind two spaces":  {post + "Transfer-Encoding:  chunked\r\n\r\n0\r\n\r\n", badEncoding},
		"chunked before a space":     {post + "Transfer-Encoding: chunked \r\n\r\n0\r\n\r\n", badEncoding},
		"chunked with vertical tab":  {post + "Transfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n", badControl},
		"chunked with NUL":           {post + "Transfer-Encoding: chunked\x00\r\n\r\n0\r\n\r\n", badControl},
		"chunked quoted":             {post + "Transfer-Encoding: \"chunked\"\r\n\r\n0\r\n\r\n", badEncoding},
		"chunked with a parameter":   {post + "Transfer-Encoding: chunked;a=b\r\n\r\n0\r\n\r\n", badEncoding},
		"encoding, space, colon":     {post + "Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n", badNameSpace},
		"folded encoding":            {post + "Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n", badEncoding},
		"two lengths":                {post + "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!", badLengths},
		"list of two lengths":        {post + "Content-Length: 5, 6\r\n\r\nhello!", badLength},
		"list of one length":         {post + "Content-Length: 5, 5\r\n\r\nhello", badLength},
		"length with plus":           {post + "Content-Length: +5\r\n\r\nhello", badLength},
		"length with minus":          {post + "Content-Length: -5\r\n\r\nhello", badLength},
		"length of minus 0":          {post + "Content-Length: -0\r\n\r\n", badLength},
		"length in hex":              {post + "Content-Length: 0x5\r\n\r\nhello", badLength},
		"length with underscore":     {post + "Content-Length: 1_0\r\n\r\nhellohello", badLength},
		"length with inner space":    {post + "Content-Length: 1 0\r\n\r\nhellohello", badLength},
		"empty length":               {post + "Content-Length:\r\n\r\n" + smuggled, badLength},
		"length just too large":      {post + "Content-Length: 9223372036854775808\r\n\r\nhello", badLength},
		"overflowing length":         {post + "Content-Length: 18446744073709551621\r\n\r\nhello", badLength},
		"length with decimals":       {post + "Content-Length: 5.0\r\n\r\nhello", badLength},
		"length in other digits":     {post + "Content-Length: \u0665\r\n\r\nhello", badLength},
		"length, space, colon":       {post + "Content-Length : 5\r\n\r\nhello", badNameSpace},
		"chunk size with plus":       {post + "Transfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"chunk size with minus":      {post + "Transfer-Encoding: chunked\r\n\r\n-5\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"chunk size with 0x":         {post + "Transfer-Encoding: chunked\r\n\r\n0x5\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"chunk size with underscore": {post + "Transfer-Encoding: chunked\r\n\r\n0_5\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"chunk size before space":    {post + "Transfer-Encoding: chunked\r\n\r\n5 \r\nhello\r\n0\r\n\r\n", badChunkSize},
		"chunk size behind space":    {post + "Transfer-Encoding: chunked\r\n\r\n 5\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"chunk size of 17 digits":    {post + "Transfer-Encoding: chunked\r\n\r\n00000000000000005\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"chunk size over 63 bits":    {post + "Transfer-Encoding: chunked\r\n\r\n8000000000000000\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"empty chunk size":           {post + "Transfer-Encoding: chunked\r\n\r\n\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"extension without a size":   {post + "Transfer-Encoding: chunked\r\n\r\n;a\r\nhello\r\n0\r\n\r\n", badChunkSize},
		"no CRLF after chunk":        {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhelloXX0\r\n\r\n", badChunkEnd},
		"LF after chunk":             {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\n0\r\n\r\n", badChunkEnd},
		"CR after chunk":             {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r0\r\n\r\n", badChunkEnd},
		"bare LF after chunk size":   {post + "Transfer-Encoding: chunked\r\n\r\n5\nhello\r\n0\r\n\r\n", badChunkLine},
		"bare CR after chunk size":   {post + "Transfer-Encoding: chunked\r\n\r\n5\rhello\r\n0\r\n\r\n", badChunkLine},
		"bare LF in chunk extension": {post + "Transfer-Encoding: chunked\r\n\r\n5;a\nhello\r\n0\r\n\r\n", badChunkLine},
		"bare CR in chunk extension": {post + "Transfer-Encoding: chunked\r\n\r\n5;a\rb\r\nhello\r\n0\r\n\r\n", badChunkLine},
		"NUL in chunk extension":     {post + "Transfer-Encoding: chunked\r\n\r\n5;a\x00\r\nhello\r\n0\r\n\r\n", badExtension},
		"long chunk extension": {post + "Transfer-Encoding: chunked\r\n\r\n5;" + strings.Repeat("a", 4097) + "\r\nhello\r\n0\r\n\r\n",
			longExtensions},
		"many chunk extensions": {post + "Transfer-Encoding: chunked\r\n\r\n" + strings.Repeat("1;aaaaaaa\r\nx\r\n", 1000) + "0\r\n\r\n",
			longExtensions},
		"bare LF after the last":      {post + "Transfer-Encoding: chunked\r\n\r\n0\n\r\n", badChunkLine},
		"bare LF at the very end":     {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\n", badLineEnd},
		"folded trailer":              {post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\n b\r\n\r\n", badFold},
		"bare LF in a trailer":        {post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\nX-B: 2\r\n\r\n", badLineEnd},
		"trailer without a name":      {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n: 1\r\n\r\n", badName},
		"request in place of trailer": {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + smuggled, badNameSpace},

		// Lines and fields.
		"bare LF":                     {"GET / HTTP/1.1\nHost: app.example.test\n\n", badLineEnd},
		"bare LF in fields":           {get + "X-A: 1\nX-B: 2\r\n\r\n", badLineEnd},
		"bare LF at the end":          {get + "\n", badLineEnd},
		"bare LF before a request":    {"\n" + get + "\r\n", badLineEnd},
		"two empty lines before":      {"\r\n\r\n" + get + "\r\n", badRequestLine},
		"bare CR before a request":    {"\r" + get + "\r\n", badRequestLine},
		"bare CR in a value":          {get + "X-A: 1\rX-B: 2\r\n\r\n", badLineEnd},
		"two CR":                      {get + "X-A: 1\r\r\n\r\n", badLineEnd},
		"bare CR at the end":          {get + "\rX-A: 1\r\n\r\n", badLineEnd},
		"NUL in a value":              {get + "X-A: 1\x00\r\n\r\n", badControl},
		"control byte in a value":     {get + "X-A: \x01\r\n\r\n", badControl},
		"DEL in a value":              {get + "X-A: \x7f\r\n\r\n", badControl},
		"control byte late":           {get + "X-A: 0123456789012345\x1f678901234567890\r\n\r\n", badControl},
		"folded field":                {get + "X-A: 1\r\n folded\r\n\r\n", badFold},
		"folded with tab":             {get + "X-A: 1\r\n\tfolded\r\n\r\n", badFold},
		"space before the first name": {"GET / HTTP/1.1\r\n Host: app.example.test\r\n\r\n", badFold},
		"empty name":                  {get + ": 1\r\n\r\n", badName},
		"name with a space":           {get + "X A: 1\r\n\r\n", badNameSpace},
		"tab before colon":            {get + "X-A\t: 1\r\n\r\n", badNameSpace},
		"name with a slash":           {get + "X/A: 1\r\n\r\n", badName},
		"name with NUL":               {get + "X\x00A: 1\r\n\r\n", badName},
		"name with UTF-8":             {get + "X-\u00e9: 1\r\n\r\n", badName},
		"no colon":                    {get + "X-A\r\n\r\n", badName},
		"no colon, LF":                {get + "X-A\n\r\n", badLineEnd},

		// The request line.
		"HTTP/0.9":                {"GET /\r\n\r\n", badRequestLine},
		"HTTP/0.9 with LF":        {"GET /\n", badLineEnd},
		"HTTP/1.2":                {line("GET / HTTP/1.2"), badVersion},
		"HTTP/2.0":                {line("GET / HTTP/2.0"), badVersion},
		"HTTP/1.10":               {line("GET / HTTP/1.10"), badVersion},
		"HTTP/1.":                 {line("GET / HTTP/1."), badVersion},
		"HTTP/1":                  {line("GET / HTTP/1"), badVersion},
		"HTTP/01.1":               {line("GET / HTTP/01.1"), badVersion},
		"http/1.1 in lower case":  {line("GET / http/1.1"), badVersion},
		"X":                       {line("GET / X"), badVersion},
		"two spaces":              {line("GET  / HTTP/1.1"), badRequestLine},
		"two spaces behind":       {line("GET /  HTTP/1.1"), badVersion},
		"trailing space":          {line("GET / HTTP/1.1 "), badVersion},
		"leading space":           {line(" GET / HTTP/1.1"), badRequestLine},
		"tab in the line":         {line("GET\t/ HTTP/1.1"), badRequestLine},
		"tab behind the target":   {line("GET /\tHTTP/1.1"), badTarget},
		"no target":               {line("GET HTTP/1.1"), badRequestLine},
		"method only":             {line("GET"), badRequestLine},
		"method that is no token": {line("GE(T / HTTP/1.1"), badRequestLine},
		"TLS":                     {"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", badRequestLine},
		"bare LF in the line":     {"GET / HTTP/1.1\nHost: a\r\n\r\n", badLineEnd},

		// Target and host.
		"no host":                        {"GET / HTTP/1.1\r\n\r\n", badMissingHost},
		"empty host":                     {"GET / HTTP/1.1\r\nHost:\r\n\r\n", badMissingHost},
		"two hosts":                      {get + "Host: other.test\r\n\r\n", badHosts},
		"the same host twice":            {get + "HOST: app.example.test\r\n\r\n", badHosts},
		"two hosts in HTTP/1.0":          {"GET / HTTP/1.0\r\nHost:\r\nHost: a\r\n\r\n", badHosts},
		"userinfo in host":               {"GET / HTTP/1.1\r\nHost: user@a.test\r\n\r\n", badHost},
		"bad port":                       {"GET / HTTP/1.1\r\nHost: a.test:80a\r\n\r\n", badHost},
		"port out of range":              {"GET / HTTP/1.1\r\nHost: a.test:65536\r\n\r\n", badHost},
		"path in host":                   {"GET / HTTP/1.1\r\nHost: a.test/x\r\n\r\n", badHost},
		"list in host":                   {"GET / HTTP/1.1\r\nHost: a.test, b.test\r\n\r\n", badHost},
		"space in host":                  {"GET / HTTP/1.1\r\nHost: a.test b.test\r\n\r\n", badHost},
		"host, space, colon":             {"GET / HTTP/1.1\r\nHost : a.test\r\n\r\n", badNameSpace},
		"fragment":                       {line("GET /a#b HTTP/1.1"), badTarget},
		"fragment in the query":          {line("GET /a?b#c HTTP/1.1"), badTarget},
		"control byte in target":         {line("GET /a\x01b HTTP/1.1"), badTarget},
		"NUL in target":                  {line("GET /a\x00b HTTP/1.1"), badTarget},
		"DEL in target":                  {line("GET /0123456789abcdef\x7fb HTTP/1.1"), badTarget},
		"space in target":                {line("GET /a b HTTP/1.1"), badVersion},
		"CR in target":                   {line("GET /a\rb HTTP/1.1"), badRequestLine},
		"relative target":                {line("GET a HTTP/1.1"), badTargetForm},
		"authority form":                 {line("GET app.example.test:80 HTTP/1.1"), badTargetForm},
		"asterisk without OPTIONS":       {line("GET * HTTP/1.1"), badTargetForm},
		"asterisk and more":              {line("OPTIONS *a HTTP/1.1"), badTargetForm},
		"absolute form of another":       {line("GET http://other.test/ HTTP/1.1"), badAgreement},
		"absolute form of a longer":      {line("GET http://app.example.testx/ HTTP/1.1"), badAgreement},
		"absolute form, other port":      {line("GET http://app.example.test:81/ HTTP/1.1"), badAgreement},
		"absolute form, other's default": {line("GET http://app.example.test:443/ HTTP/1.1"), badAgreement},
		"absolute form without Host":     {"GET http://a.test/ HTTP/1.1\r\n\r\n", badMissingHost},
		"absolute form with userinfo":    {line("GET http://u@app.example.test/ HTTP/1.1"), badTargetForm},
		"absolute form, host in userinfo": {line("GET http://app.example.test@evil.test/ HTTP/1.1"),
			badTargetForm},
		"absolute form without a host": {line("GET http:///x HTTP/1.1"), badTargetForm},
		"absolute form cut":            {line("GET http:// HTTP/1.1"), badTargetForm},
		"absolute form, backslash":     {line("GET http://app.example.test\\@evil.test/ HTTP/1.1"), badTargetForm},
		"unknown scheme":               {line("GET ftp://app.example.test/ HTTP/1.1"), badTargetForm},
		"scheme of one more letter":    {line("GET httpss://app.example.test/ HTTP/1.1"), badTargetForm},
		"CONNECT with a path":          {line("CONNECT /x HTTP/1.1"), badConnect},
		"CONNECT without a port":       {line("CONNECT app.example.test HTTP/1.1"), badConnect},
		"CONNECT without a host":       {line("CONNECT :80 HTTP/1.1"), badConnect},
		"CONNECT to an address cut":    {line("CONNECT [::1] HTTP/1.1"), badConnect},
		"CONNECT to another":           {line("CONNECT other.test:80 HTTP/1.1"), badAgreement},

		"upgrade with a body": {get + "Connection: upgrade\r\nUpgrade: websocket\r\nContent-Length: 1\r\n\r\nx", badUpgradeBody},
		"upgrade with chunks": {get + "Connection: upgrade\r\nUpgrade: websocket\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
			badUpgradeBody},
		"head over the limit":   {get + "X-A: " + strings.Repeat("a", defaultBytes) + "\r\n\r\n", tooLong},
		"fields over the limit": {get + strings.Repeat("X-A: 1\r\n", defaultFields) + "\r\n", tooMany},
		"line over the limit":   {"GET /" + strings.Repeat("a", 2*defaultBytes), tooLong},
		"trailers over the limit": {post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: " + strings.Repeat("a", defaultBytes) + "\r\n\r\n",
			tooLong},
		"many trailers": {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n" + strings.Repeat("X-A: 1\r\n", defaultFields+1) + "\r\n", tooMany},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			requests, err := firstError(tt.raw)
			kind, why := causeOf(err)
			if why != tt.want || requests > 1 {
				t.Errorf("%d requests, then %v, want %q", requests, err, tt.want)
			}
			want := exchange.BadRequest
			switch tt.want {
			case tooLong, tooMany:
				want = exchange.FieldsTooLarge
			case badUpgradeBody:
				want = exchange.UpgradeUnsupported
			}
			if kind != want {
				t.Errorf("refused as %s, want %s", kind, want)
			}
			if strings.Contains(string(why), "goes on") {
				t.Error("the cause says nothing")
			}
			everyWay(t, tt.raw, script{})
		})
	}
}

func TestAcceptedRequests(t *testing.T) {
	const host = "Host: app.example.test\r\n"
	const plain = `"GET" "app.example.test" "/" ""` + "\n"
	nothing := message(exchange.HTTP11, 0) + content("")
	tests := map[string]struct {
		raw  string
		want string
	}{
		"smallest": {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", `"GET" "a" "/" ""` + "\n" + nothing},
		"fields in order and spelling": {get + "X-B: 1\r\nx-a:2\r\nACCEPT: \t a b\t \r\nX-B:\r\n\r\n",
			plain + `"X-B": "1"` + "\n" + `"x-a": "2"` + "\n" + `"ACCEPT": "a b"` + "\n" + `"X-B": ""` + "\n" +
				nothing},
		"every byte that may be": {"!#$%&'*+-.^_`|~aZ09 /!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~\x80\xff HTTP/1.1\r\n" + host +
			"!#$%&'*+-.^_`|~aZ09: \x80 \t!\"#\xff\r\n\r\n",
			fmt.Sprintf("%q %q %q \"\"\n%q: %q\n", "!#$%&'*+-.^_`|~aZ09", "app.example.test", "/!\"$%&'()*+,-./:;<=>?@[\\]^_`{|}~\x80\xff",
				"!#$%&'*+-.^_`|~aZ09", "\x80 \t!\"#\xff") + nothing},
		"query as it is": {"GET /?a;b&%zz=1&c[]=%00? HTTP/1.1\r\n" + host + "\r\n",
			`"GET" "app.example.test" "/?a;b&%zz=1&c[]=%00?" ""` + "\n" + nothing},
		"same length twice": {post + "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
			`"POST" "app.example.test" "/" ""` + "\n" + `"Content-Length": "5"` + "\n" + message(exchange.HTTP11, 5) + content("hello")},
		"an empty line before each": {"\r\n" + get + "\r\n\r\n" + get + "\r\n\r\n",
			strings.Repeat(plain+message(exchange.HTTP11, 0)+content(""), 2)},
		"length": {post + "Content-Length: 0005\r\n\r\nhello" + get + "\r\n",
			`"POST" "app.example.test" "/" ""` + "\n\"Content-Length\": \"0005\"\n" + message(exchange.HTTP11, 5) + content("hello") +
				plain + nothing},
		"chunks and trailers": {post + "transfer-encoding:chunked\r\n\r\n5;a=\"b\t\xff\"\r\nhello\r\n000A;\r\n0123456789\r\n0000\r\nX-Sum: 1\r\nHost: h\r\n\r\n" + get + "\r\n",
			`"POST" "app.example.test" "/" ""` + "\n\"transfer-encoding\": \"chunked\"\n" + message(exchange.HTTP11, Chunked) +
				content("hello0123456789") +
				"trailer \"X-Sum\": \"1\"\ntrailer \"Host\": \"h\"\n" + plain + nothing},
		"HTTP/1.0":           {"GET / HTTP/1.0\r\n\r\n", `"GET" "" "/" ""` + "\n" + lastly(exchange.HTTP10, 0) + content("")},
		"HTTP/1.0 with Host": {"GET / HTTP/1.0\r\nHost: a\r\n\r\n", `"GET" "a" "/" ""` + "\n" + lastly(exchange.HTTP10, 0) + content("")},
		"HTTP/1.0 that expects": {"GET / HTTP/1.0\r\nExpect: 100-continue\r\n\r\n", `"GET" "" "/" ""` + "\n" + lastly(exchange.HTTP10, 0) +
			content("")},
		"HTTP/1.0 that upgrades": {"GET / HTTP/1.0\r\nConnection: keep-alive, upgrade\r\nUpgrade: websocket\r\n\r\n",
			"\"GET\" \"\" \"/\" \"\"\n\"Connection\": \"keep-alive, upgrade\"\n\"Upgrade\": \"websocket\"\n" + message(exchange.HTTP10, 0) +
				content("")},
		"close": {get + "Connection: x,\tClose ,y\r\n\r\n",
			plain + "\"Connection\": \"x,\\tClose ,y\"\n" + lastly(exchange.HTTP11, 0) + content("")},
		"close in HTTP/1.0": {"GET / HTTP/1.0\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
			"\"GET\" \"\" \"/\" \"\"\n\"Connection\": \"keep-alive\"\n\"Connection\": \"close\"\n" + lastly(exchange.HTTP10, 0) + content("")},
		"expects": {post + "Expect: 100-Continue\r\nContent-Length: 1\r\n\r\nx",
			`"POST" "app.example.test" "/" ""` + "\n\"Content-Length\": \"1\"\n" +
				fmt.Sprintf("%+v\n", Message{Proto: exchange.HTTP11, Length: 1, Continue: true}) + content("x")},
		"expects something else": {get + "Expect: 100-continue, x\r\n\r\n",
			plain + "\"Expect\": \"100-continue, x\"\n" + nothing},

		"OPTIONS *": {"OPTIONS * HTTP/1.1\r\n" + host + "\r\n", `"OPTIONS" "app.example.test" "*" ""` + "\n" + nothing},
		"absolute form": {"GET http://app.example.test/x?y HTTP/1.1\r\n" + host + "\r\n", `"GET" "app.example.test" "/x?y" ""` +
			"\n" + nothing},
		"absolute form, other case": {"GET HTTPS://APP.example.TEST/x HTTP/1.1\r\n" + host + "\r\n", `"GET" "app.example.test" "/x" ""` +
			"\n" + nothing},
		"absolute form, default port": {"GET https://app.example.test:443 HTTP/1.1\r\n" + host + "\r\n", plain + nothing},
		"absolute form, Host's port":  {"GET http://a.test HTTP/1.1\r\nHost: a.test:80\r\n\r\n", `"GET" "a.test:80" "/" ""` + "\n" + nothing},
		"absolute form, query only": {"GET http://app.example.test?x/y HTTP/1.1\r\n" + host + "\r\n", `"GET" "app.example.test" "/?x/y" ""` +
			"\n" + nothing},
		"absolute form, no Host": {"GET http://a.test:8080?x HTTP/1.0\r\n\r\n", `"GET" "a.test:8080" "/?x" ""` + "\n" +
			lastly(exchange.HTTP10, 0) + content("")},
		"absolute form of OPTIONS": {"OPTIONS http://[::1]:80 HTTP/1.1\r\nHost: [::1]\r\n\r\n", `"OPTIONS" "[::1]" "*" ""` + "\n" + nothing},
		"CONNECT": {"CONNECT a.test:443 HTTP/1.1\r\nHost: A.test\r\n\r\n", `"CONNECT" "a.test:443" "a.test:443" ""` + "\n" +
			nothing},
		"CONNECT with Upgrade": {"CONNECT a.test:443 HTTP/1.1\r\nHost: a.test:443\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
			"\"CONNECT\" \"a.test:443\" \"a.test:443\" \"\"\n\"Connection\": \"upgrade\"\n\"Upgrade\": \"websocket\"\n" + nothing},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			want := tt.want + "error EOF\n"
			if got := everyWay(t, tt.raw, script{}); got != want {
				t.Errorf("got\n%swant\n%s", got, want)
			}
		})
	}
}

func message(proto exchange.Proto, length int64) string {
	return fmt.Sprintf("%+v\n", Message{Proto: proto, Length: length})
}

func lastly(proto exchange.Proto, length int64) string {
	return fmt.Sprintf("%+v\n", Message{Proto: proto, Length: length, Close: true})
}

func content(b string) string { return fmt.Sprintf("body %q\n", b) }

func TestUpgrade(t *testing.T) {
	tests := map[string]struct {
		fields string
		want   string
	}{
		"websocket":             {"Connection: Upgrade\r\nUpgrade: websocket\r\n", "websocket"},
		"in other case":         {"Connection: keep-alive, uPGRADE\r\nUpgrade: WebSocket\r\nContent-Length: 0\r\n", "websocket"},
		"another":               {"Connection: Upgrade\r\nUpgrade: X-Proto/2.A\r\n", "x-proto/2.a"},
		"not named":             {"Upgrade: websocket\r\n", ""},
		"named only":            {"Connection: Upgrade\r\n", ""},
		"h2c":                   {"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAoAAAAAIAAAAA\r\n", ""},
		"h2c with a body":       {"Connection: Upgrade\r\nUpgrade: H2C\r\nContent-Length: 2\r\n", ""},
		"TLS":                   {"Connection: Upgrade\r\nUpgrade: TLS/1.2\r\n", ""},
		"HTTP":                  {"Connection: Upgrade\r\nUpgrade: HTTP/3.0\r\n", ""},
		"several in a list":     {"Connection: Upgrade\r\nUpgrade: websocket, h2c\r\n", ""},
		"several lines":         {"Connection: Upgrade\r\nUpgrade: websocket\r\nUpgrade: websocket\r\n", ""},
		"not a token":           {"Connection: Upgrade\r\nUpgrade: web socket\r\n", ""},
		"version not a token":   {"Connection: Upgrade\r\nUpgrade: web/\r\n", ""},
		"an option that is not": {"Connection: Upgrade2\r\nUpgrade: websocket\r\n", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var r Reader
			r.Init(strings.NewReader(get+tt.fields+"\r\n"), nil, Limits{})
			var head exchange.Head
			if err := r.ReadRequest(&head, &Message{}); err != nil || head.Protocol != tt.want {
				t.Errorf("%q, %v; want %q", head.Protocol, err, tt.want)
			}
		})
	}
}

func TestRequestEnds(t *testing.T) {
	tests := map[string]struct {
		raw  string
		want error
	}{
		"nothing":           {"", io.EOF},
		"an empty line":     {"\r\n", io.EOF},
		"half of one":       {"\r", io.ErrUnexpectedEOF},
		"in the line":       {"GET / HT", io.ErrUnexpectedEOF},
		"in the fields":     {get, io.ErrUnexpectedEOF},
		"in the last line":  {get + "\r", io.ErrUnexpectedEOF},
		"after one":         {get + "\r\n", io.EOF},
		"in the second":     {get + "\r\nG", io.ErrUnexpectedEOF},
		"before the body":   {post + "Content-Length: 1\r\n\r\n", io.ErrUnexpectedEOF},
		"in the body":       {post + "Content-Length: 9\r\n\r\n12345678", io.ErrUnexpectedEOF},
		"before a chunk":    {post + "Transfer-Encoding: chunked\r\n\r\n", io.ErrUnexpectedEOF},
		"in a chunk size":   {post + "Transfer-Encoding: chunked\r\n\r\n1", io.ErrUnexpectedEOF},
		"in a chunk":        {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhell", io.ErrUnexpectedEOF},
		"behind a chunk":    {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello", io.ErrUnexpectedEOF},
		"before the last":   {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n", io.ErrUnexpectedEOF},
		"before the end":    {post + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n", io.ErrUnexpectedEOF},
		"in the trailers":   {post + "Transfer-Encoding: chunked\r\n\r\n0\r\nX-A: 1\r\n", io.ErrUnexpectedEOF},
		"in the last CRLF":  {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r", io.ErrUnexpectedEOF},
		"behind the chunks": {post + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", io.EOF},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if _, err := firstError(tt.raw); !errors.Is(err, tt.want) {
				t.Errorf("%v, want %v", err, tt.want)
			}
			everyWay(t, tt.raw, script{})
		})
	}
}

// TestLimits has heads of exactly the limit and of one more.
func TestLimits(t *testing.T) {
	const line = "GET / HTTP/1.1\r\nHost: a\r\n"
	for _, limit := range []int{len(line) + 20, 1000, poolSize - 1, poolSize, poolSize + 1, 40_000} {
		for _, over := range []int{0, 1} {
			raw := line + "X-A: " + strings.Repeat("a", limit+over-len(line)-len("X-A: \r\n\r\n")) + "\r\n\r\n"
			got := everyWay(t, raw+raw, script{limits: Limits{Bytes: limit}})
			refused := strings.HasSuffix(got, "error "+exchange.NewFault(exchange.FieldsTooLarge, tooLong).Error()+"\n")
			if refused != (over == 1) || strings.Count(got, "X-A") != 2*(1-over) {
				t.Errorf("limit %d, %d over: got %.200s", limit, over, got)
			}
		}
	}
	for _, over := range []int{0, 1} {
		raw := get + strings.Repeat("X-A: 1\r\n", 2+over) + "\r\n"
		got := everyWay(t, raw, script{limits: Limits{Fields: 3}})
		if refused := strings.HasSuffix(got, string(tooMany)+"\n"); refused != (over == 1) {
			t.Errorf("%d over the limit of fields: got %s", over, got)
		}
	}
}

// A refused request keeps what could be made out, for the log.
func TestRefusedHeadIsKept(t *testing.T) {
	var r Reader
	r.Init(strings.NewReader(get+"User-Agent: probe\r\nX A: 1\r\n\r\n"), nil, Limits{})
	head := exchange.Head{Authority: "old", Protocol: "old", Fields: exchange.Fields{{Name: "old"}}}
	err := r.ReadRequest(&head, &Message{})
	if err == nil || head.Method != "GET" || head.Target != "/" || head.Fields.Get(exchange.UserAgent) != "probe" || head.Authority != "" ||
		head.Protocol != "" {
		t.Errorf("%v: %s", err, showRequest(&head))
	}
}
