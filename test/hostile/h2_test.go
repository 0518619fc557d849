package hostile

import (
	"testing"
	"time"

	"golang.org/x/net/http2"

	"gatehouse.dev/gatehouse/test/harness"
)

// with returns the fields of a plain request with some more, which stand after or in place of its own.
func with(more ...string) harness.Fields {
	return append(harness.F(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "app.example.test"), harness.F(more...)...)
}

func fields(pairs ...string) harness.Fields { return harness.F(pairs...) }

func TestHTTP2MalformedRequests(t *testing.T) {
	cases := map[string]struct {
		fields         harness.Fields
		knownForwarded string
	}{
		"upper case name":           {with("X-Upper", "1"), ""},
		"CR in a value":             {with("x-a", "1\rb"), ""},
		"LF in a value":             {with("x-a", "1\nb"), ""},
		"NUL in a value":            {with("x-a", "1\x00"), ""},
		"leading space":             {with("x-a", " 1"), "net/http does not trim or refuse it"},
		"trailing space":            {with("x-a", "1 "), "net/http does not trim or refuse it"},
		"colon in a name":           {with("x:a", "1"), ""},
		"empty name":                {with("", "1"), ""},
		"connection":                {with("connection", "close"), ""},
		"keep-alive":                {with("keep-alive", "1"), ""},
		"proxy-connection":          {with("proxy-connection", "close"), ""},
		"transfer-encoding":         {with("transfer-encoding", "chunked"), ""},
		"upgrade":                   {with("upgrade", "websocket"), ""},
		"te other than trailers":    {with("te", "gzip"), ""},
		"late pseudo-header":        {fields(":method", "GET", ":scheme", "http", "x-a", "1", ":path", "/", ":authority", "a.test"), ""},
		"duplicate :path":           {with(":path", "/other"), ""},
		"duplicate :authority":      {with(":authority", "other.test"), ""},
		"duplicate :method":         {with(":method", "POST"), ""},
		"unknown pseudo-header":     {with(":x", "1"), ""},
		":status in a request":      {with(":status", "200"), ""},
		"no :path":                  {fields(":method", "GET", ":scheme", "http", ":authority", "a.test"), ""},
		"no :method":                {fields(":scheme", "http", ":path", "/", ":authority", "a.test"), ""},
		"no :scheme":                {fields(":method", "GET", ":path", "/", ":authority", "a.test"), ""},
		"empty :path":               {fields(":method", "GET", ":scheme", "http", ":path", "", ":authority", "a.test"), ""},
		"relative :path":            {fields(":method", "GET", ":scheme", "http", ":path", "x", ":authority", "a.test"), ""},
		"space in :path":            {fields(":method", "GET", ":scheme", "http", ":path", "/a b", ":authority", "a.test"), ""},
		"request in :path":          {fields(":method", "GET", ":scheme", "http", ":path", "/ HTTP/1.1\r\nHost: x\r\n\r\n", ":authority", "a.test"), ""},
		"fragment in :path":         {fields(":method", "GET", ":scheme", "http", ":path", "/a#b", ":authority", "a.test"), ""},
		"absolute :path":            {fields(":method", "GET", ":scheme", "http", ":path", "http://x.test/", ":authority", "a.test"), ""},
		":scheme ftp":               {fields(":method", "GET", ":scheme", "ftp", ":path", "/", ":authority", "a.test"), ""},
		":authority against host":   {with("host", "other.test"), ""},
		"userinfo in :authority":    {fields(":method", "GET", ":scheme", "http", ":path", "/", ":authority", "u@a.test"), ""},
		"space in :method":          {fields(":method", "GET /x", ":scheme", "http", ":path", "/", ":authority", "a.test"), ""},
		"wrong content-length":      {with("content-length", "5"), ""},
		"two content-lengths":       {with("content-length", "0", "content-length", "1"), ""},
		"content-length with plus":  {with("content-length", "+0"), "net/http ignores a content-length that it cannot parse"},
		"CONNECT":                   {fields(":method", "CONNECT", ":authority", "a.test:80"), ""},
		"CONNECT with a path":       {fields(":method", "CONNECT", ":scheme", "http", ":path", "/", ":authority", "a.test:80"), ""},
		":protocol without CONNECT": {with(":protocol", "websocket"), ""},
		"TRACE":                     {fields(":method", "TRACE", ":scheme", "http", ":path", "/", ":authority", "a.test"), ""},
	}
	t.Parallel()
	for name, tc := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			origin := harness.NewRecorder(t, harness.AnswerOK)
			cluster := harness.Cluster("recorder", harness.UpH1, origin.Addr)
			env := harness.New(t, harness.Combo{Down: harness.H2C, Up: harness.UpH1}, nil, func(o *harness.EnvOptions) { o.Backend = cluster })
			conn, err := harness.DialH2(harness.ClientOptions{Address: env.Address()}, false)
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			time.AfterFunc(harness.Patience, conn.Close)
			s, err := conn.OpenFields(tc.fields, true)
			if err != nil {
				t.Fatal(err)
			}
			r, err := harness.Finish(s)
			reached := origin.Bytes()
			switch {
			case tc.knownForwarded != "" && reached == "":
				t.Errorf("refused: take knownForwarded out of the table (%s)", tc.knownForwarded)
			case tc.knownForwarded != "":
			case reached != "":
				t.Errorf("the origin got %q; the client got %+v, %v", reached, r, err)
			case err == nil && r.Status < 400:
				t.Errorf("the client got %d", r.Status)
			}
		})
	}
}

// Pseudo-headers and framing in trailers are a stream error.
func TestHTTP2MalformedTrailers(t *testing.T) {
	for name, trailers := range map[string]harness.Fields{
		"pseudo-header": harness.F(":path", "/x"), "upper case": harness.F("X-A", "1"),
	} {
		origin := harness.NewRecorder(t, harness.AnswerOK)
		cluster := harness.Cluster("recorder", harness.UpH1, origin.Addr)
		env := harness.New(t, harness.Combo{Down: harness.H2C, Up: harness.UpH1}, nil, func(o *harness.EnvOptions) { o.Backend = cluster })
		conn, err := harness.DialH2(harness.ClientOptions{Address: env.Address()}, false)
		if err != nil {
			t.Fatal(err)
		}
		s, err := conn.OpenFields(harness.F(":method", "POST", ":scheme", "http", ":path", "/", ":authority", "a.test"), false)
		if err != nil {
			t.Fatal(err)
		}
		block := conn.Block(trailers)
		conn.Write(func(fr *http2.Framer) error {
			fr.WriteData(1, false, []byte("hi"))
			return fr.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: block, EndHeaders: true, EndStream: true})
		})
		if r, err := harness.Finish(s); err == nil && r.Status == 200 && r.Err == nil && complete(origin.Bytes()) {
			t.Errorf("%s: the request was served: %+v", name, r)
		}
		conn.Close()
	}
}
