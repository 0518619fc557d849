package section

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/gateway/exchange"
)

var roomy = Limits{Bytes: 64 << 10, Fields: 200}

// pairs are names and values in turns.
func pairs(list ...string) []string { return list }

// get is a sound request; with what is given behind its pseudo-fields.
func get(more ...string) []string {
	return append(pairs(":method", "GET", ":scheme", "https", ":authority", "a.example", ":path", "/"), more...)
}

func buildRequest(list []string, limits Limits) (exchange.Head, int64, error) {
	var head exchange.Head
	var b Request
	b.Begin(&head, limits)
	for i := 0; i < len(list); i += 2 {
		_ = b.Add(list[i], list[i+1])
	}
	length, err := b.Finish()
	return head, length, err
}

func TestRequest(t *testing.T) {
	tests := map[string]struct {
		list    []string
		want    exchange.Head
		length  int64
		wantErr string
	}{
		"least": {list: get(), want: exchange.Head{Method: "GET", Scheme: "https", Authority: "a.example", Target: "/"}, length: -1},
		"any order": {
			list: pairs(":path", "/a?b", ":authority", "a:1", ":scheme", "http", ":method", "M-SEARCH", "x", "1", "content-length", "007", "x", ""),
			want: exchange.Head{Method: "M-SEARCH", Scheme: "http", Authority: "a:1", Target: "/a?b", Fields: exchange.Fields{
				{Name: "x", Value: "1"}, {Name: "content-length", Value: "007", ID: exchange.ContentLength}, {Name: "x"}}},
			length: 7,
		},
		"host instead": {
			list: pairs(":method", "GET", ":scheme", "https", ":path", "/", "host", "a.example", "te", "Trailers"),
			want: exchange.Head{Method: "GET", Scheme: "https", Authority: "a.example", Target: "/",
				Fields: exchange.Fields{{Name: "te", Value: "Trailers", ID: exchange.TE}}}, length: -1,
		},
		"host beside":   {list: get("host", "A.Example"), want: exchange.Head{Method: "GET", Scheme: "https", Authority: "a.example", Target: "/"}, length: -1},
		"asterisk":      {list: pairs(":method", "OPTIONS", ":scheme", "http", ":authority", "a", ":path", "*"), want: exchange.Head{Method: "OPTIONS", Scheme: "http", Authority: "a", Target: "*"}, length: -1},
		"CONNECT":       {list: pairs(":method", "CONNECT", ":authority", "a:1"), want: exchange.Head{Method: "CONNECT", Authority: "a:1"}, length: -1},
		"high bytes":    {list: get("x", "caf\xe9 \t caf\xc3\xa9"), want: exchange.Head{Method: "GET", Scheme: "https", Authority: "a.example", Target: "/", Fields: exchange.Fields{{Name: "x", Value: "caf\xe9 \t caf\xc3\xa9"}}}, length: -1},
		"WebSocket":     {list: pairs(":method", "CONNECT", ":protocol", "WebSocket", ":scheme", "https", ":path", "/c", ":authority", "a"), want: exchange.Head{Method: "CONNECT", Scheme: "https", Authority: "a", Target: "/c", Protocol: "websocket"}, length: -1},
		"largest":       {list: get("content-length", "9223372036854775807"), want: exchange.Head{Method: "GET", Scheme: "https", Authority: "a.example", Target: "/", Fields: exchange.Fields{{Name: "content-length", Value: "9223372036854775807", ID: exchange.ContentLength}}}, length: 1<<63 - 1},
		"no method":     {list: pairs(":scheme", "https", ":authority", "a", ":path", "/"), wantErr: ":method"},
		"empty method":  {list: pairs(":method", "", ":scheme", "https", ":authority", "a", ":path", "/"), wantErr: ":method"},
		"odd method":    {list: pairs(":method", "GE T", ":scheme", "https", ":authority", "a", ":path", "/"), wantErr: ":method"},
		"no scheme":     {list: pairs(":method", "GET", ":authority", "a", ":path", "/"), wantErr: ":scheme"},
		"other scheme":  {list: pairs(":method", "GET", ":scheme", "ftp", ":authority", "a", ":path", "/"), wantErr: ":scheme"},
		"upper scheme":  {list: pairs(":method", "GET", ":scheme", "HTTP", ":authority", "a", ":path", "/"), wantErr: ":scheme"},
		"no path":       {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a"), wantErr: ":path"},
		"empty path":    {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", ""), wantErr: ":path"},
		"relative path": {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "a/b"), wantErr: ":path"},
		"absolute URI":  {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "http://b/"), wantErr: ":path"},
		"path asterisk": {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "*"), wantErr: ":path"},
		"path space":    {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/ HTTP/1.1"), wantErr: ":path"},
		"path fragment": {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/#"), wantErr: ":path"},
		"path control":  {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/\x7f"), wantErr: "control"},
		"path tab":      {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/a\tb"), wantErr: ":path"},
		"no authority":  {list: pairs(":method", "GET", ":scheme", "http", ":path", "/"), wantErr: "authority"},
		"two hosts":     {list: get("host", "a.example", "host", "a.example"), wantErr: "more than one host"},
		"host differs":  {list: get("host", "b.example"), wantErr: "differ"},
		"host empty":    {list: get("host", ""), wantErr: "differ"},
		"userinfo":      {list: pairs(":method", "GET", ":scheme", "http", ":authority", "u@a", ":path", "/"), wantErr: "authority"},
		"bad port":      {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a:b", ":path", "/"), wantErr: "authority"},
		"bad host":      {list: pairs(":method", "GET", ":scheme", "http", ":path", "/", "host", "a b"), wantErr: "authority"},

		"CONNECT with path":    {list: pairs(":method", "CONNECT", ":authority", "a:1", ":path", "/"), wantErr: "CONNECT"},
		"CONNECT with scheme":  {list: pairs(":method", "CONNECT", ":authority", "a:1", ":scheme", "http"), wantErr: "CONNECT"},
		"CONNECT to nowhere":   {list: pairs(":method", "CONNECT"), wantErr: "authority"},
		"protocol with GET":    {list: pairs(":method", "GET", ":protocol", "websocket", ":scheme", "http", ":authority", "a", ":path", "/"), wantErr: ":protocol"},
		"protocol, no path":    {list: pairs(":method", "CONNECT", ":protocol", "websocket", ":scheme", "http", ":authority", "a"), wantErr: ":path"},
		"protocol, no scheme":  {list: pairs(":method", "CONNECT", ":protocol", "websocket", ":path", "/", ":authority", "a"), wantErr: ":scheme"},
		"protocol empty":       {list: pairs(":method", "CONNECT", ":protocol", "", ":path", "/", ":authority", "a", ":scheme", "http"), wantErr: ":protocol"},
		"protocol odd":         {list: pairs(":method", "CONNECT", ":protocol", "a/b", ":path", "/", ":authority", "a", ":scheme", "http"), wantErr: ":protocol"},
		"two paths":            {list: get(":path", "/b"), wantErr: "twice"},
		"late pseudo-field":    {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", "x", "1", ":path", "/"), wantErr: "behind"},
		"late behind host":     {list: pairs(":method", "GET", ":scheme", "http", "host", "a", ":path", "/"), wantErr: "behind"},
		"a response's":         {list: get(":status", "200"), wantErr: "none of a request"},
		"unknown pseudo-field": {list: get(":x", "1"), wantErr: "none of a request"},
		"lone colon":           {list: get(":", "1"), wantErr: "not a token"},

		"upper case":        {list: get("X", "1"), wantErr: "lower case"},
		"empty name":        {list: get("", "1"), wantErr: "not a token"},
		"name with space":   {list: get("x ", "1"), wantErr: "not a token"},
		"name with colon":   {list: get("x:y", "1"), wantErr: "not a token"},
		"name with LF":      {list: get("x\n", "1"), wantErr: "not a token"},
		"name with NUL":     {list: get("x\x00", "1"), wantErr: "not a token"},
		"name not ASCII":    {list: get("caf\xc3\xa9", "1"), wantErr: "not a token"},
		"value with CR":     {list: get("x", "a\rb"), wantErr: "control"},
		"value with LF":     {list: get("x", "a\nb"), wantErr: "control"},
		"value with NUL":    {list: get("x", "a\x00b"), wantErr: "control"},
		"value with DEL":    {list: get("x", "a\x7fb"), wantErr: "control"},
		"leading space":     {list: get("x", " a"), wantErr: "space"},
		"trailing space":    {list: get("x", "a "), wantErr: "space"},
		"leading tab":       {list: get("x", "\ta"), wantErr: "space"},
		"only a space":      {list: get("x", " "), wantErr: "space"},
		"pseudo, space":     {list: pairs(":method", "GET", ":scheme", "http", ":authority", "a", ":path", "/ "), wantErr: "space"},
		"connection":        {list: get("connection", "close"), wantErr: "forbids"},
		"keep-alive":        {list: get("keep-alive", "1"), wantErr: "forbids"},
		"proxy-connection":  {list: get("proxy-connection", "close"), wantErr: "forbids"},
		"transfer-encoding": {list: get("transfer-encoding", "chunked"), wantErr: "forbids"},
		"upgrade":           {list: get("upgrade", "h2c"), wantErr: "forbids"},
		"te":                {list: get("te", "gzip"), wantErr: "te"},
		"te and more":       {list: get("te", "trailers, gzip"), wantErr: "te"},
		"two lengths":       {list: get("content-length", "1", "content-length", "1"), wantErr: "more than one"},
		"signed length":     {list: get("content-length", "+0"), wantErr: "content-length"},
		"negative length":   {list: get("content-length", "-1"), wantErr: "content-length"},
		"list of lengths":   {list: get("content-length", "1, 1"), wantErr: "content-length"},
		"empty length":      {list: get("content-length", ""), wantErr: "content-length"},
		"hex length":        {list: get("content-length", "0x1"), wantErr: "content-length"},
		"huge length":       {list: get("content-length", "9223372036854775808"), wantErr: "content-length"},
		"long length":       {list: get("content-length", "00000000000000000000"), wantErr: "content-length"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, length, err := buildRequest(tt.list, roomy)
			if tt.wantErr != "" {
				var malformed Malformed
				if !errors.As(err, &malformed) || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("err = %v, want one about %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got.Fields, tt.want.Fields) || length != tt.length {
				t.Errorf("fields %v, length %d", got.Fields, length)
			}
			got.Fields, tt.want.Fields = nil, nil
			if got.Method != tt.want.Method || got.Scheme != tt.want.Scheme || got.Authority != tt.want.Authority || got.Target != tt.want.Target ||
				got.Protocol != tt.want.Protocol {
				t.Errorf("got %+v", got)
			}
		})
	}
}

func TestResponse(t *testing.T) {
	tests := map[string]struct {
		list    []string
		status  int
		length  int64
		wantErr string
	}{
		"least":           {list: pairs(":status", "200"), status: 200, length: -1},
		"with a length":   {list: pairs(":status", "204", "content-length", "0"), status: 204, length: 0},
		"interim":         {list: pairs(":status", "103", "link", "x"), status: 103, length: -1},
		"no status":       {list: pairs("a", "b"), wantErr: "no status"},
		"empty":           {wantErr: "no status"},
		"two":             {list: pairs(":status", "200", ":status", "200"), wantErr: "out of place"},
		"late":            {list: pairs("a", "b", ":status", "200"), wantErr: "out of place"},
		"a request's":     {list: pairs(":status", "200", ":path", "/"), wantErr: "out of place"},
		"signed":          {list: pairs(":status", "+20"), wantErr: "malformed status"},
		"two digits":      {list: pairs(":status", "20"), wantErr: "malformed status"},
		"four digits":     {list: pairs(":status", "2000"), wantErr: "malformed status"},
		"below 100":       {list: pairs(":status", "099"), wantErr: "malformed status"},
		"not digits":      {list: pairs(":status", "2x0"), wantErr: "malformed status"},
		"101":             {list: pairs(":status", "101"), wantErr: "101"},
		"te":              {list: pairs(":status", "200", "te", "trailers"), wantErr: "te"},
		"connection":      {list: pairs(":status", "200", "connection", "x"), wantErr: "forbids"},
		"upper case":      {list: pairs(":status", "200", "A", "b"), wantErr: "field name"},
		"line break":      {list: pairs(":status", "200", "a", "b\r\nc: d"), wantErr: "value of the field"},
		"several lengths": {list: pairs(":status", "200", "content-length", "1", "content-length", "2"), wantErr: "more than one"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			var response exchange.Response
			var b Response
			b.Begin(&response, roomy)
			for i := 0; i < len(tt.list); i += 2 {
				_ = b.Add(tt.list[i], tt.list[i+1])
			}
			length, err := b.Finish()
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("err = %v, want one about %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || response.Status != tt.status || length != tt.length {
				t.Errorf("got %d, length %d, %v", response.Status, length, err)
			}
		})
	}
}

func TestTrailers(t *testing.T) {
	tests := map[string]struct {
		list    []string
		wantErr string
	}{
		"sound":             {list: pairs("x-sum", "7", "x-sum", "8")},
		"none":              {},
		"pseudo-field":      {list: pairs(":status", "200"), wantErr: "trailers"},
		"pseudo-field late": {list: pairs("a", "b", ":path", "/"), wantErr: "trailers"},
		"te":                {list: pairs("te", "trailers"), wantErr: "te"},
		"connection":        {list: pairs("connection", "x"), wantErr: "forbids"},
		"upper case":        {list: pairs("A", "b"), wantErr: "lower case"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			fields := exchange.Fields{{Name: "left", Value: "over"}}
			var b Trailers
			b.Begin(&fields, roomy)
			for i := 0; i < len(tt.list); i += 2 {
				_ = b.Add(tt.list[i], tt.list[i+1])
			}
			err := b.Finish()
			if tt.wantErr == "" && (err != nil || len(fields) != len(tt.list)/2) {
				t.Errorf("got %v, %v", fields, err)
			}
			if tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)) {
				t.Errorf("err = %v, want one about %q", err, tt.wantErr)
			}
		})
	}
}

// TestLimits: they hold to the byte and to the field, and the first error stays.
func TestLimits(t *testing.T) {
	list := get("x", "12345")
	size := 0
	for _, s := range list {
		size += len(s)
	}
	size += Overhead * len(list) / 2
	for name, tt := range map[string]struct {
		limits Limits
		want   error
	}{
		"just enough":     {Limits{Bytes: size, Fields: 5}, nil},
		"one byte less":   {Limits{Bytes: size - 1, Fields: 5}, ErrTooLarge},
		"one field fewer": {Limits{Bytes: size, Fields: 4}, ErrTooLarge},
		"nothing":         {Limits{}, ErrTooLarge},
	} {
		t.Run(name, func(t *testing.T) {
			if _, _, err := buildRequest(list, tt.limits); err != tt.want {
				t.Errorf("err = %v, want %v", err, tt.want)
			}
			head, _, err := buildRequest(append(list, "y", "", "Z", ""), tt.limits)
			if tt.want != nil && err != tt.want || len(head.Fields) > 2 {
				t.Errorf("err = %v, fields %v", err, head.Fields)
			}
		})
	}
}

func TestArena(t *testing.T) {
	var a Arena
	var kept, want []string
	for n := range 200 {
		s := strings.Repeat(string(rune('a'+n%26)), n*7)
		kept, want = append(kept, a.CopyString(s)), append(want, s)
	}
	if !slices.Equal(kept, want) {
		t.Error("what was taken changed")
	}
	part := a.Room(10)
	if got := a.Take(append(part, "part"...)); got != "part" || a.Copy([]byte("next")) != "next" || got != "part" {
		t.Errorf("got %q", got)
	}
	a.Reset()
	if cap(a.chunk) > largestKept {
		t.Errorf("%d bytes are kept", cap(a.chunk))
	}
	text := []byte(strings.Repeat("x", 100))
	if allocs := testing.AllocsPerRun(100, func() {
		a.Reset()
		for range 10 {
			_ = a.Copy(text)
		}
	}); allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestRequestDoesNotAllocate(t *testing.T) {
	list := get("accept", "*/*", "user-agent", "test", "x-request-id", "1234", "content-length", "5")
	var head exchange.Head
	var b Request
	allocs := testing.AllocsPerRun(100, func() {
		b.Begin(&head, roomy)
		for i := 0; i < len(list); i += 2 {
			_ = b.Add(list[i], list[i+1])
		}
		if _, err := b.Finish(); err != nil {
			t.Fatal(err)
		}
	})
	if allocs > 0 {
		t.Errorf("%v allocations", allocs)
	}
}

// FuzzRequest: whatever passes is one message, also when it is written as HTTP/1.1.
func FuzzRequest(f *testing.F) {
	for _, seed := range [][]string{
		get(), get("x", "a\nb"), get("content-length", "+1"), get("host", "b"), pairs(":method", "CONNECT", ":authority", "a:1"),
		pairs(":method", "CONNECT", ":protocol", "websocket", ":scheme", "https", ":path", "/c", ":authority", "a"), get("te", "trailers"),
	} {
		f.Add(strings.Join(seed, "\xff"))
	}
	f.Fuzz(func(t *testing.T, joined string) {
		list := strings.Split(joined, "\xff")
		if len(list)%2 == 1 {
			list = list[:len(list)-1]
		}
		head, length, err := buildRequest(list, roomy)
		if err != nil {
			return
		}
		for _, s := range []string{head.Method, head.Target, head.Authority, head.Protocol} {
			if strings.ContainsAny(s, " \t\r\n\x00#") {
				t.Fatalf("%q is in the head", s)
			}
		}
		if head.Authority == "" || (head.Scheme != "http" && head.Scheme != "https") != (head.Method == "CONNECT" && head.Protocol == "") {
			t.Fatalf("got %+v", head)
		}
		lengths := 0
		for _, field := range head.Fields {
			if field.Name == "" || strings.ContainsAny(field.Name, " \t\r\n\x00:") || strings.ToLower(field.Name) != field.Name ||
				strings.ContainsAny(field.Value, "\r\n\x00") || strings.Trim(field.Value, " \t") != field.Value || field.ID != exchange.IDOf(field.Name) {
				t.Fatalf("got the field %+q", field)
			}
			switch field.ID {
			case exchange.Host, exchange.Connection, exchange.TransferEncoding, exchange.Upgrade:
				t.Fatalf("got the field %+q", field)
			case exchange.ContentLength:
				lengths++
			}
		}
		if lengths > 1 || (length >= 0) != (lengths == 1) {
			t.Fatalf("%d lengths, %d", lengths, length)
		}
	})
}
