package headers

import (
	"testing"

	"gatehouse.dev/gatehouse/filters"
	"gatehouse.dev/gatehouse/filters/filtertest"
	"gatehouse.dev/gatehouse/gateway/exchange"
)

func TestModifier(t *testing.T) {
	tests := map[string]struct {
		config Config
		have   exchange.Fields
		want   string
	}{
		"nothing": {have: filtertest.Fields("A", "1"), want: "A: 1\n"},
		"set": {
			config: Config{Set: []Field{{"my-header", "bar"}}},
			have:   filtertest.Fields("My-Header", "foo", "X", "1", "my-header", "more"),
			want:   "my-header: bar\nX: 1\n",
		},
		"set what is missing": {config: Config{Set: []Field{{"My-Header", "bar"}}}, want: "My-Header: bar\n"},
		"set to nothing":      {config: Config{Set: []Field{{"a", ""}}}, have: filtertest.Fields("A", "1"), want: "a: \n"},
		"add": {
			config: Config{Add: []Field{{"my-header", "bar,baz"}}},
			have:   filtertest.Fields("My-Header", "foo", "X", "1"),
			want:   "My-Header: foo\nX: 1\nmy-header: bar,baz\n",
		},
		"add what is missing": {config: Config{Add: []Field{{"My-Header", "bar"}}}, want: "My-Header: bar\n"},
		"add a cookie": {
			config: Config{Add: []Field{{"cookie", "b=2"}}},
			have:   filtertest.Fields("Cookie", "a=1", "X", "1"),
			want:   "Cookie: a=1; b=2\nX: 1\n",
		},
		"add the first cookie": {config: Config{Add: []Field{{"Cookie", "b=2"}}}, want: "Cookie: b=2\n"},
		"remove": {
			config: Config{Remove: []string{"my-header1", "My-Header3", "not-there"}},
			have:   filtertest.Fields("My-Header1", "foo", "my-header2", "bar", "my-header3", "baz", "MY-HEADER1", "x"),
			want:   "my-header2: bar\n",
		},
		"all three": {
			config: Config{Set: []Field{{"s", "1"}, {"via", "2"}}, Add: []Field{{"a", "3"}, {"b", "4"}}, Remove: []string{"r", "user-agent"}},
			have:   filtertest.Fields("R", "0", "A", "0", "Via", "0", "User-Agent", "x"),
			want:   "A: 0\nvia: 2\ns: 1\na: 3\nb: 4\n",
		},
		"blanks around": {config: Config{Set: []Field{{"a", " \tx\ty "}}}, want: "a: x\ty\n"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			x := filtertest.Exchange(t, "GET", "http://a/", 80)
			x.Req.Fields, x.Resp.Fields = tt.have.Clone(), tt.have.Clone()
			f := filtertest.Build(t, RequestSpec(), tt.config)
			if action, err := f.OnRequest(t.Context(), x); action != filters.Continue || err != nil {
				t.Fatalf("OnRequest: %v, %v", action, err)
			}
			f.OnResponse(x)
			checkFields(t, "request", x.Req.Fields, tt.want)
			checkFields(t, "response", x.Resp.Fields, filtertest.Lines(tt.have))

			x.Req.Fields, x.Resp.Fields = tt.have.Clone(), tt.have.Clone()
			f = filtertest.Build(t, ResponseSpec(), tt.config)
			if action, err := f.OnRequest(t.Context(), x); action != filters.Continue || err != nil {
				t.Fatalf("OnRequest: %v, %v", action, err)
			}
			f.OnResponse(x)
			checkFields(t, "request", x.Req.Fields, filtertest.Lines(tt.have))
			checkFields(t, "response", x.Resp.Fields, tt.want)
		})
	}
}

// checkFields compares lines, and that each line's ID is the one of its name.
func checkFields(t *testing.T, side string, got exchange.Fields, want string) {
	t.Helper()
	if lines := filtertest.Lines(got); lines != want {
		t.Errorf("%s: got\n%swant\n%s", side, lines, want)
	}
	for _, line := range got {
		if line.ID != exchange.IDOf(line.Name) {
			t.Errorf("%s: %q carries the ID of %q", side, line.Name, line.ID)
		}
	}
}

func TestRefused(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string
	}{
		"empty name":                 {Config{Set: []Field{{"", "x"}}}, "set: a field name is empty"},
		"no token":                   {Config{Add: []Field{{"x y", "z"}}}, `add: "x y" is not a field name`},
		"colon":                      {Config{Remove: []string{"x:"}}, "remove: \"x:\" is not a field name"},
		"pseudo-header":              {Config{Set: []Field{{":path", "/"}}}, "pseudo-header"},
		"line end in a name":         {Config{Remove: []string{"x\r\ny"}}, "not a field name"},
		"CR in a value":              {Config{Set: []Field{{"x", "a\rb"}}}, "control character"},
		"LF in a value":              {Config{Set: []Field{{"x", "a\nb: c"}}}, "control character"},
		"NUL in a value":             {Config{Add: []Field{{"x", "a\x00"}}}, "control character"},
		"Connection":                 {Config{Set: []Field{{"Connection", "close"}}}, "belongs to one connection"},
		"Transfer-Encoding":          {Config{Set: []Field{{"transfer-encoding", "chunked"}}}, "belongs to one connection"},
		"Upgrade":                    {Config{Remove: []string{"UPGRADE"}}, "belongs to one connection"},
		"Content-Length":             {Config{Remove: []string{"Content-Length"}}, "frames the message"},
		"set twice":                  {Config{Set: []Field{{"x-a", "1"}, {"X-A", "2"}}}, `set: field "X-A" already stands under set`},
		"set and added":              {Config{Set: []Field{{"x-a", "1"}}, Add: []Field{{"x-a", "2"}}}, "add: field \"x-a\" already stands under set"},
		"added and removed":          {Config{Add: []Field{{"x-a", "1"}}, Remove: []string{"X-a"}}, "already stands under add"},
		"removed twice, other cases": {Config{Remove: []string{"x-a", "X-A"}}, "already stands under remove"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			filtertest.CheckRefused(t, RequestSpec(), tt.config, tt.want)
			filtertest.CheckRefused(t, ResponseSpec(), tt.config, tt.want)
		})
	}
	filtertest.CheckStrict(t, RequestSpec())
	filtertest.CheckStrict(t, ResponseSpec())
}

// A response may carry what means nothing there; only in a request do Host and Expect steer the exchange.
func TestRefusedInRequestsOnly(t *testing.T) {
	host, expect := Config{Set: []Field{{"Host", "a"}}}, Config{Remove: []string{"expect"}}
	filtertest.CheckRefused(t, RequestSpec(), host, "use a URLRewrite filter with hostname")
	filtertest.CheckRefused(t, RequestSpec(), expect, "frames the message")
	filtertest.Build(t, ResponseSpec(), host)
	filtertest.Build(t, ResponseSpec(), expect)
}

func TestReadmeExamples(t *testing.T) {
	examples := filtertest.Examples(t)
	if len(examples) != 2 || examples[0].Kind != RequestKind || examples[1].Kind != ResponseKind {
		t.Fatalf("README.md shows %v", examples)
	}
	x := filtertest.Exchange(t, "GET", "http://a/", 80, "x-env", "dev", "x-via", "cdn", "x-debug", "1")
	x.Resp.Fields = filtertest.Fields("Server", "a/1", "Content-Type", "text/html", "x-powered-by", "b")
	request, response := filtertest.Build(t, RequestSpec(), examples[0].Payload), filtertest.Build(t, ResponseSpec(), examples[1].Payload)
	if _, err := request.OnRequest(t.Context(), x); err != nil {
		t.Fatal(err)
	}
	response.OnResponse(x)
	checkFields(t, "request", x.Req.Fields, "X-Env: prod\nx-via: cdn\nX-Via: gatehouse\n")
	checkFields(t, "response", x.Resp.Fields, "Content-Type: text/html\nStrict-Transport-Security: max-age=31536000\n")

	if got, want := RequestSpec().Describe(examples[0].Payload), "set X-Env: prod; add X-Via: gatehouse; remove X-Debug"; got != want {
		t.Errorf("Describe: %q, want %q", got, want)
	}
}

func TestDescribeKeepsCredentials(t *testing.T) {
	payload := filters.Encode(Config{Set: []Field{{"authorization", "Bearer s3cret"}}, Add: []Field{{"Cookie", "s3cret=1"}}})
	if got, want := RequestSpec().Describe(payload), "set authorization: [redacted]; add Cookie: [redacted]"; got != want {
		t.Errorf("Describe: %q, want %q", got, want)
	}
}

func TestApplyDoesNotAllocate(t *testing.T) {
	f := filtertest.Build(t, RequestSpec(), Config{Set: []Field{{"X-Env", "prod"}}, Remove: []string{"x-debug"}, Add: []Field{{"x-added", "1"}}})
	x := filtertest.Exchange(t, "GET", "http://a/", 80)
	base := filtertest.Fields("x-env", "dev", "host", "a")
	x.Req.Fields = make(exchange.Fields, 0, 8)
	allocs := testing.AllocsPerRun(100, func() {
		x.Req.Fields = append(x.Req.Fields[:0], base...)
		if _, err := f.OnRequest(t.Context(), x); err != nil {
			t.Fatal(err)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations, want 0", allocs)
	}
}

// FuzzConfig checks that no settings make a filter write a line that is no field line.
func FuzzConfig(f *testing.F) {
	f.Add([]byte(`{"set":[{"name":"a","value":"b"}],"add":[{"name":"c","value":"d\r\ne: f"}],"remove":["g"]}`))
	f.Add([]byte(`{"set":[{"name":"a b","value":""}]}`))
	f.Add([]byte(`{"add":[{"name":"Cookie","value":" x "}]}`))
	f.Fuzz(func(t *testing.T, payload []byte) {
		spec := RequestSpec()
		valid := spec.Validate(payload)
		filter, err := spec.Build(payload, &filters.Builder{})
		if (valid == nil) != (err == nil) {
			t.Fatalf("Validate says %v, Build %v", valid, err)
		}
		if err != nil {
			return
		}
		x := &exchange.Exchange{}
		x.Req.Fields = filtertest.Fields("Cookie", "a=1")
		if _, err := filter.OnRequest(t.Context(), x); err != nil {
			t.Fatal(err)
		}
		for _, line := range x.Req.Fields {
			for _, c := range []byte(line.Name + line.Value) {
				if c == '\r' || c == '\n' || c == 0 {
					t.Fatalf("%q: %q", line.Name, line.Value)
				}
			}
		}
	})
}
