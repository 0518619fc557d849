package exchange

import (
	"errors"
	"strings"
	"testing"
)

// TestNormalizePath holds every line of the table in path.go and the path items of the threat catalogue.
func TestNormalizePath(t *testing.T) {
	tests := map[string]struct {
		path    string
		want    string
		wantErr string
	}{
		"root":                       {path: "/", want: "/"},
		"plain":                      {path: "/a/b.c/d-e_f~g", want: "/a/b.c/d-e_f~g"},
		"trailing slash stays":       {path: "/a/", want: "/a/"},
		"sub-delims":                 {path: "/!$&'()*+,;=:@", want: "/!$&'()*+,;=:@"},
		"left alone by browsers":     {path: "/a[1]|b^2", want: "/a[1]|b^2"},
		"name that begins with dot":  {path: "/.well-known/acme", want: "/.well-known/acme"},
		"name that begins with dots": {path: "/..a", want: "/..a"},
		"three dots":                 {path: "/.../a", want: "/.../a"},
		"name that ends with dots":   {path: "/a../b.", want: "/a../b."},

		"dot segments":                {path: "/a/./b/../c", want: "/a/c"},
		"encoded dots":                {path: "/a/%2e%2E/c", want: "/c"},
		"half encoded dots":           {path: "/a/.%2e/%2e/c", want: "/c"},
		"dot alone":                   {path: "/.", want: "/"},
		"dot and slash":               {path: "/./", want: "/"},
		"dot at the end":              {path: "/a/.", want: "/a/"},
		"dots at the end":             {path: "/a/b/..", want: "/a/"},
		"dots and slash at the end":   {path: "/a/b/../", want: "/a/"},
		"back to the root":            {path: "/a/..", want: "/"},
		"back to the root, slash":     {path: "/a/../", want: "/"},
		"back to the root and on":     {path: "/a/../b", want: "/b"},
		"two up":                      {path: "/a/b/../../c", want: "/c"},
		"two up to the root":          {path: "/a/b/../..", want: "/"},
		"parameters do not save":      {path: "/a;x=1/../b", want: "/b"},
		"dots remove no empty name":   {path: "/a//../b", want: "/b"},
		"encoded dots at the end":     {path: "/a/%2E%2e", want: "/"},
		"dot segments after a decode": {path: "/%61/..", want: "/"},

		"slashes":               {path: "//a///b", want: "/a/b"},
		"only slashes":          {path: "///", want: "/"},
		"slashes at the end":    {path: "/a//", want: "/a/"},
		"slashes and dots":      {path: "//a//.//b//", want: "/a/b/"},
		"off-site":              {path: "//evil.example/%2e./", want: "/"},
		"unreserved escapes":    {path: "/%7Euser/%41%2d%5F%2e%30", want: "/~user/A-_.0"},
		"escaped slash":         {path: "/a%2fb", want: "/a%2Fb"},
		"escaped slash, upper":  {path: "/a%2Fb", want: "/a%2Fb"},
		"escaped backslash":     {path: "/a%5cb", want: "/a%5Cb"},
		"escaped slash first":   {path: "/%2fevil", want: "/%2Fevil"},
		"escaped slashes":       {path: "/%2f%2F/", want: "/%2F%2F/"},
		"once, not twice":       {path: "/a%252fb", want: "/a%252fb"},
		"dots once, not twice":  {path: "/%252e%252e/a", want: "/%252e%252e/a"},
		"dots half twice":       {path: "/a/.%252e/b", want: "/a/.%252e/b"},
		"parameters":            {path: "/a;x=1/b", want: "/a;x=1/b"},
		"parameters alone":      {path: "/;x/a", want: "/;x/a"},
		"parameters that dot":   {path: "/a;x=../b", want: "/a;x=../b"},
		"three dots, params":    {path: "/...;x", want: "/...;x"},
		"UTF-8":                 {path: "/caf%C3%A9", want: "/caf%C3%A9"},
		"UTF-8, lower":          {path: "/caf%c3%a9", want: "/caf%C3%A9"},
		"UTF-8, three bytes":    {path: "/%E2%82%AC", want: "/%E2%82%AC"},
		"UTF-8, least of three": {path: "/%e0%a0%80", want: "/%E0%A0%80"},
		"UTF-8, least of four":  {path: "/%f0%90%80%80", want: "/%F0%90%80%80"},
		"Latin-1":               {path: "/%e9", want: "/%E9"},
		"Latin-1 before text":   {path: "/%e0x", want: "/%E0x"},
		"escaped space":         {path: "/a%20b", want: "/a%20b"},
		"escaped ? and #":       {path: "/a%3f%23", want: "/a%3F%23"},
		"escaped CR LF":         {path: "/%0d%0a", want: "/%0D%0A"},
		"dots in a name, slash": {path: "/a..%2fb", want: "/a..%2Fb"},
		"hidden, slash":         {path: "/a%2f.git", want: "/a%2F.git"},

		"climbs":                   {path: "/../a", wantErr: "climbs"},
		"climbs at once":           {path: "/..", wantErr: "climbs"},
		"climbs late":              {path: "/a/../../b", wantErr: "climbs"},
		"climbs after dot":         {path: "/./..", wantErr: "climbs"},
		"climbs encoded":           {path: "/%2e%2e/a", wantErr: "climbs"},
		"climbs over slashes":      {path: "//a////../..", wantErr: "climbs"},
		"dots with parameters":     {path: "/..;/a", wantErr: "parameters"},
		"dots with parameters end": {path: "/a/..;x=1", wantErr: "parameters"},
		"dot with parameters":      {path: "/.;x/a", wantErr: "parameters"},
		"encoded dots, parameters": {path: "/a/%2e%2e;/b", wantErr: "parameters"},
		"dots, encoded parameters": {path: "/a/..%3b/b", wantErr: "parameters"},
		"dot, encoded parameters":  {path: "/.%3Bx/a", wantErr: "parameters"},
		"dots, escaped slash":      {path: "/a/..%2fb", wantErr: "escaped slash"},
		"escaped slash, dots":      {path: "/a%2F..", wantErr: "escaped slash"},
		"escaped slash, dots, on":  {path: "/a%2f../b", wantErr: "escaped slash"},
		"dots between":             {path: "/a%2f..%5cb", wantErr: "escaped slash"},
		"dot, escaped backslash":   {path: "/.%5ca", wantErr: "escaped slash"},
		"escaped dots and slash":   {path: "/a/%2e%2e%2fb", wantErr: "escaped slash"},
		"slash, dots, parameters":  {path: "/a%2f..;x/b", wantErr: "parameters"},

		"NUL":                  {path: "/%00", wantErr: "%00"},
		"NUL in a name":        {path: "/a.txt%00.png", wantErr: "%00"},
		"overlong slash":       {path: "/a%c0%af", wantErr: "overlong"},
		"overlong dot":         {path: "/%C0%AE%C0%AE/", wantErr: "overlong"},
		"overlong, not UTF-8":  {path: "/a%c1%1c", wantErr: "overlong"},
		"overlong, three":      {path: "/a%e0%80%af", wantErr: "overlong"},
		"overlong, four":       {path: "/a%f0%80%80%af", wantErr: "overlong"},
		"overlong, five":       {path: "/a%f8%80%80%80%af", wantErr: "overlong"},
		"overlong, six":        {path: "/a%fc%80%80%80%80%af", wantErr: "overlong"},
		"backslash":            {path: `/a\b`, wantErr: "must be escaped"},
		"backslash first":      {path: `/\evil`, wantErr: "must be escaped"},
		"space":                {path: "/a b", wantErr: "must be escaped"},
		"fragment":             {path: "/a#b", wantErr: "must be escaped"},
		"query":                {path: "/a?b", wantErr: "must be escaped"},
		"raw NUL":              {path: "/a\x00", wantErr: "must be escaped"},
		"tab":                  {path: "/a\tb", wantErr: "must be escaped"},
		"CR":                   {path: "/a\r\nb", wantErr: "must be escaped"},
		"DEL":                  {path: "/a\x7f", wantErr: "must be escaped"},
		"raw UTF-8":            {path: "/café", wantErr: "must be escaped"},
		"raw overlong":         {path: "/a\xc0\xaf", wantErr: "must be escaped"},
		"quote":                {path: `/"`, wantErr: "must be escaped"},
		"angle":                {path: "/<script>", wantErr: "must be escaped"},
		"bad after an escape":  {path: "/%41 b", wantErr: "must be escaped"},
		"no hex":               {path: "/%zz", wantErr: "two hex digits"},
		"cut escape":           {path: "/%2", wantErr: "two hex digits"},
		"percent at the end":   {path: "/a%", wantErr: "two hex digits"},
		"escape in an escape":  {path: "/%%34%31", wantErr: "two hex digits"},
		"escape of half a one": {path: "/%2%35", wantErr: "two hex digits"},
		"relative":             {path: "a/b", wantErr: "begin with '/'"},
		"empty":                {path: "", wantErr: "begin with '/'"},
		"absolute URI":         {path: "http://a/b", wantErr: "begin with '/'"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := NormalizePath(tt.path)
			checkError(t, err, tt.wantErr)
			if got != tt.want {
				t.Errorf("NormalizePath(%q) = %q, want %q", tt.path, got, tt.want)
			}
		})
	}
}

func TestNormalizePathErrorNamesTheByte(t *testing.T) {
	if _, err := NormalizePath("/a\x01b"); err == nil || !strings.Contains(err.Error(), `"\x01"`) {
		t.Errorf("err = %v, want one that names the byte", err)
	}
}

func TestNormalizePathDoesNotAllocateForCleanPaths(t *testing.T) {
	for _, path := range []string{"/", "/api/v1/users/42", "/.well-known/acme-challenge/x", "/caf%C3%A9/a%2Fb", "/a;x=1/b.c/..d/", "/%252e."} {
		allocs := testing.AllocsPerRun(100, func() {
			if got, err := NormalizePath(path); err != nil || got != path {
				t.Fatalf("NormalizePath(%q) = %q, %v", path, got, err)
			}
		})
		if allocs != 0 {
			t.Errorf("%q: %v allocations, want 0", path, allocs)
		}
	}
}

func TestHeadNormalize(t *testing.T) {
	tests := map[string]struct {
		method    string
		target    string
		path      string
		query     string
		hasQuery  bool
		forwarded string
		wantErr   string
	}{
		"no query":              {target: "/a", path: "/a", forwarded: "/a"},
		"empty query":           {target: "/a?", path: "/a", hasQuery: true, forwarded: "/a?"},
		"query":                 {target: "/a/../b?x=1", path: "/b", query: "x=1", hasQuery: true, forwarded: "/b?x=1"},
		"query is not touched":  {target: "/a?x=%zz;%2e%2e/../%00&&=?/", path: "/a", query: "x=%zz;%2e%2e/../%00&&=?/", hasQuery: true, forwarded: "/a?x=%zz;%2e%2e/../%00&&=?/"},
		"query with UTF-8":      {target: "/a?ü", path: "/a", query: "ü", hasQuery: true, forwarded: "/a?ü"},
		"dots before the query": {target: "/a/..?/..", path: "/", query: "/..", hasQuery: true, forwarded: "/?/.."},
		"asterisk":              {method: "OPTIONS", target: "*", path: "*", forwarded: "*"},
		"asterisk with GET":     {method: "GET", target: "*", wantErr: "begin with '/'"},
		"asterisk with query":   {method: "OPTIONS", target: "*?a", wantErr: "begin with '/'"},
		"space in the query":    {target: "/a?b c", wantErr: "query holds"},
		"hash in the query":     {target: "/a?b#c", wantErr: "query holds"},
		"CR in the query":       {target: "/a?b\rc", wantErr: "query holds"},
		"DEL in the query":      {target: "/a?\x7f", wantErr: "query holds"},
		"only a query":          {target: "?a", wantErr: "begin with '/'"},
		"bad path":              {target: "/..", wantErr: "climbs"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			h := Head{Method: tt.method, Target: tt.target, path: "/left/from/before"}
			err := h.Normalize()
			checkError(t, err, tt.wantErr)
			if err != nil {
				if fault, ok := errors.AsType[*Fault](err); !ok || fault.Kind != BadPath || fault.Status != 400 {
					t.Errorf("err = %#v, want a fault of kind %s", err, BadPath)
				}
				if h.Path() != "" {
					t.Errorf("path = %q after a refusal, want none", h.Path())
				}
				return
			}
			if h.Path() != tt.path || h.Query() != tt.query || h.HasQuery() != tt.hasQuery {
				t.Errorf("path %q, query %q, %v; want %q, %q, %v", h.Path(), h.Query(), h.HasQuery(), tt.path, tt.query, tt.hasQuery)
			}
			if got := h.ForwardTarget(); got != tt.forwarded {
				t.Errorf("forwarded %q, want %q", got, tt.forwarded)
			}
			h.SetPath("/new")
			if got, want := h.ForwardTarget(), "/new"+strings.TrimPrefix(tt.forwarded, tt.path); got != want {
				t.Errorf("after SetPath: forwarded %q, want %q", got, want)
			}
		})
	}
}

// FuzzNormalizePath compares with a slow model that works on lists, and checks what the rest of the gateway relies on.
func FuzzNormalizePath(f *testing.F) {
	for _, seed := range []string{
		"/", "/a/b/../c/.", "//a//", "/a/%2e%2E/c", "/%7Euser/%41", "/a%2fb%5cc", "/a%252fb", "/..;/a", "/a;x/../b", "/caf%C3%A9",
		"/%c0%af", "/%e0%80%af", "/%00", "/%zz", "/%2", "a/b", "/a%2f..", "/..%5c", "/.%3b", "/\\a", "/a b", "/.../..a/.b", "/%2e%2e%2f",
		"/a/..;%2F..%5C.;/b", "/./././", "/a/b/c/../../../", "/%F0%90%80%80", "/%FC%80", "/[|^]", "/%2f/",
	} {
		f.Add(seed)
	}
	f.Fuzz(func(t *testing.T, path string) {
		got, err := NormalizePath(path)
		want, ok := modelPath(path)
		if ok != (err == nil) || got != want {
			t.Fatalf("NormalizePath(%q) = %q, %v; the model says %q, %v", path, got, err, want, ok)
		}
		if err != nil {
			if got != "" {
				t.Fatalf("NormalizePath(%q) = %q with an error", path, got)
			}
			return
		}
		if again, err := NormalizePath(got); err != nil || again != got {
			t.Errorf("NormalizePath(%q) = %q, and of that %q, %v", path, got, again, err)
		}
		if !inNormalForm(got) && !strings.Contains(got, "/.") && !strings.Contains(got, "%2F.") && !strings.Contains(got, "%5C.") {
			t.Errorf("%q is in normal form and takes the slow way", got)
		}
		if len(got) > len(path) {
			t.Errorf("%q grew to %q", path, got)
		}
		if got[0] != '/' {
			t.Errorf("%q became relative: %q", path, got)
		}
		for _, bad := range []string{"//", "/./", "/../", "\\", "?", "#", " ", "%00"} {
			if strings.Contains(got, bad) {
				t.Errorf("%q became %q, which holds %q", path, got, bad)
			}
		}
		if strings.HasSuffix(got, "/.") || strings.HasSuffix(got, "/..") {
			t.Errorf("%q became %q, which ends in a dot segment", path, got)
		}
		// Decoded once at most: each escaped percent sign that is left was there.
		if strings.Count(got, "%25") > strings.Count(path, "%25") {
			t.Errorf("%q became %q: more escaped percent signs", path, got)
		}
	})
}

// modelPath is the table in path.go written down plainly: split, normalise each name, resolve, join.
func modelPath(path string) (string, bool) {
	if !strings.HasPrefix(path, "/") {
		return "", false
	}
	var stack []string
	segments := strings.Split(path[1:], "/")
	for i, segment := range segments {
		name, ok := modelSegment(segment)
		if !ok {
			return "", false
		}
		last := i == len(segments)-1
		switch name {
		case "..":
			if len(stack) == 0 {
				return "", false
			}
			stack = stack[:len(stack)-1]
			fallthrough
		case "", ".":
			if last {
				stack = append(stack, "")
			}
		default:
			stack = append(stack, name)
		}
	}
	return "/" + strings.Join(stack, "/"), true
}

func modelSegment(segment string) (string, bool) {
	const hex = "0123456789ABCDEF"
	const unreserved = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-._~"
	var out strings.Builder
	var shown strings.Builder // as a server sees it that decodes slashes and parameters: '/' separates, ';' ends a name
	var raw []int             // the escaped bytes in sequence, -1 where another byte stands between
	for i := 0; i < len(segment); i++ {
		c := segment[i]
		if c != '%' {
			if !strings.ContainsRune(unreserved+"!$&'()*+,;=:@[]^|", rune(c)) || c >= 0x80 {
				return "", false
			}
			out.WriteByte(c)
			shown.WriteByte(c)
			raw = append(raw, -1)
			continue
		}
		if i+2 >= len(segment) {
			return "", false
		}
		high, low := strings.IndexByte(hex, upper(segment[i+1])), strings.IndexByte(hex, upper(segment[i+2]))
		if high < 0 || low < 0 || high+low == 0 {
			return "", false
		}
		i += 2
		value := byte(high<<4 | low)
		raw = append(raw, int(value))
		if strings.IndexByte(unreserved, value) >= 0 {
			out.WriteByte(value)
			shown.WriteByte(value)
			continue
		}
		out.WriteString("%" + hex[high:high+1] + hex[low:low+1])
		switch value {
		case '/', '\\':
			shown.WriteByte('/')
		case ';':
			shown.WriteByte(';')
		default:
			shown.WriteByte('x')
		}
	}
	for i, lead := range raw {
		follow := -1
		if i+1 < len(raw) {
			follow = raw[i+1]
		}
		least := map[int]int{0xe0: 0xa0, 0xf0: 0x90, 0xf8: 0x88, 0xfc: 0x84}[lead]
		if lead == 0xc0 || lead == 0xc1 || follow >= 0x80 && follow < least {
			return "", false
		}
	}
	name := out.String()
	if name == "." || name == ".." {
		return name, true
	}
	for part := range strings.SplitSeq(shown.String(), "/") {
		if before, _, _ := strings.Cut(part, ";"); before == "." || before == ".." {
			return "", false
		}
	}
	return name, true
}

func upper(c byte) byte {
	if c >= 'a' {
		return c - 32
	}
	return c
}

// FuzzHeadNormalize checks that no target makes Normalize panic and that path and query are what was received.
func FuzzHeadNormalize(f *testing.F) {
	for _, seed := range []string{"/a?b", "*", "*?", "?", "/a?%zz&;=", "/a/..?x#", "/a??", ""} {
		f.Add("OPTIONS", seed)
	}
	f.Fuzz(func(t *testing.T, method, target string) {
		h := Head{Method: method, Target: target}
		if err := h.Normalize(); err != nil {
			if h.Path() != "" {
				t.Fatalf("%q refused with the path %q left", target, h.Path())
			}
			return
		}
		_, query, has := strings.Cut(target, "?")
		if h.Query() != query || h.HasQuery() != has {
			t.Errorf("query %q, %v; want %q, %v", h.Query(), h.HasQuery(), query, has)
		}
		again := Head{Method: method, Target: h.ForwardTarget()}
		if err := again.Normalize(); err != nil || again.ForwardTarget() != h.ForwardTarget() {
			t.Errorf("%q is forwarded as %q, and that as %q, %v", target, h.ForwardTarget(), again.ForwardTarget(), err)
		}
	})
}

func BenchmarkNormalizePath(b *testing.B) {
	for name, path := range map[string]string{
		"clean":   "/api/v1/namespaces/default/pods/web-7d4b9c/log",
		"escapes": "/files/caf%C3%A9/a%2Fb",
		"rewrite": "/api//v1/./%6eamespaces/../pods",
	} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				if _, err := NormalizePath(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// checkError compares an error with a part of its text, "" for none.
func checkError(t *testing.T, err error, want string) {
	t.Helper()
	switch {
	case want == "" && err != nil:
		t.Errorf("err = %v, want none", err)
	case want != "" && err == nil:
		t.Errorf("no error, want one with %q", want)
	case want != "" && !strings.Contains(err.Error(), want):
		t.Errorf("err = %v, want %q in it", err, want)
	}
}
