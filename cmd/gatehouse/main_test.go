package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/quic-go/quic-go/http3"

	"gatehouse.dev/gatehouse/controller"
	"gatehouse.dev/gatehouse/controller/problem"
	"gatehouse.dev/gatehouse/gateway/config"
)

// execute runs a command line and returns what it printed.
func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	c := command()
	c.SetOut(&out)
	c.SetErr(&out)
	c.SetArgs(args)
	err := c.ExecuteContext(t.Context())
	return out.String(), err
}

func TestRequestHead(t *testing.T) {
	tests := map[string]struct {
		url       string
		headers   []string
		scheme    string
		authority string
		target    string
		port      uint16
		wantErr   string
	}{
		"plain":              {url: "http://a.test/x", scheme: "http", authority: "a.test", target: "/x", port: 80},
		"https":              {url: "https://a.test/x", scheme: "https", authority: "a.test", target: "/x", port: 443},
		"port":               {url: "http://a.test:8080/x", scheme: "http", authority: "a.test:8080", target: "/x", port: 8080},
		"IPv6":               {url: "http://[::1]:81/", scheme: "http", authority: "[::1]:81", target: "/", port: 81},
		"no path":            {url: "HTTP://a.test", scheme: "http", authority: "a.test", target: "/", port: 80},
		"query without path": {url: "http://a.test?b=c", scheme: "http", authority: "a.test", target: "/?b=c", port: 80},
		"bytes stay":         {url: "http://a.test/%2F/../ä?a=%zz;b#frag?x", scheme: "http", authority: "a.test", target: "/%2F/../ä?a=%zz;b", port: 80},
		"slashes in path":    {url: "http://a.test//x://y", scheme: "http", authority: "a.test", target: "//x://y", port: 80},
		"host header":        {url: "http://127.0.0.1:8080/", headers: []string{"host: b.test"}, scheme: "http", authority: "b.test", target: "/", port: 8080},
		"no scheme":          {url: "a.test/x", wantErr: "must begin with http://"},
		"other scheme":       {url: "ftp://a.test/x", wantErr: "must begin with http://"},
		"port 0":             {url: "http://a.test:0/", wantErr: "between 1 and 65535"},
		"big port":           {url: "http://a.test:65536/", wantErr: "between 1 and 65535"},
		"no port":            {url: "http://a.test:x/", wantErr: "invalid port"},
		"bad header":         {url: "http://a.test/", headers: []string{"novalue"}, wantErr: "must be 'name: value'"},
		"empty name":         {url: "http://a.test/", headers: []string{" : v"}, wantErr: "must be 'name: value'"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			head, port, err := requestHead("GET", tt.url, tt.headers)
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Errorf("got %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if head.Scheme != tt.scheme || head.Authority != tt.authority || head.Target != tt.target || port != tt.port || head.Method != "GET" {
				t.Errorf("got %+v, port %d", head, port)
			}
		})
	}
	head, _, err := requestHead("GET", "http://a.test/", []string{"X-A:  1 ", "x-a:2:3", "x-empty:"})
	if err != nil || len(head.Fields) != 3 || head.Fields[0].Value != "1" || head.Fields[1].Value != "2:3" || head.Fields[2].Value != "" {
		t.Errorf("fields %v, %v", head.Fields, err)
	}
}

func FuzzRequestHead(f *testing.F) {
	for _, s := range []string{"http://a.test/x?y#z", "https://[::1]:8443", "http://", "http://@", "http://a:b:c/", "HTTP://%41/"} {
		f.Add(s, "host: b")
	}
	f.Fuzz(func(t *testing.T, url, header string) {
		head, port, err := requestHead("GET", url, []string{header})
		if err == nil && (port == 0 || !strings.HasPrefix(head.Target, "/") || strings.Contains(head.Target, "#")) {
			t.Errorf("%q became %+v, port %d", url, head, port)
		}
	})
}

// answerServer answers with what it saw, in each protocol.
func answerServer(t *testing.T) (plain, secure *httptest.Server, quicAddress, caFile string) {
	t.Helper()
	handler := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Two", "b")
		w.WriteHeader(http.StatusTeapot)
		_, _ = io.WriteString(w, strings.Join([]string{r.Proto, r.Method, r.Host, r.RequestURI, r.Header.Get("X-A")}, " "))
	})
	plain = httptest.NewUnstartedServer(handler)
	plain.Config.Protocols = new(http.Protocols)
	plain.Config.Protocols.SetHTTP1(true)
	plain.Config.Protocols.SetUnencryptedHTTP2(true)
	plain.Start()
	t.Cleanup(plain.Close)
	secure = httptest.NewUnstartedServer(handler)
	secure.EnableHTTP2 = true
	secure.Config.ErrorLog = log.New(io.Discard, "", 0) // a handshake that fails is part of the test
	secure.StartTLS()
	t.Cleanup(secure.Close)

	packets, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h3 := &http3.Server{Handler: handler, TLSConfig: http3.ConfigureTLSConfig(&tls.Config{Certificates: secure.TLS.Certificates})}
	done := make(chan struct{})
	go func() {
		defer close(done)
		_ = h3.Serve(packets)
	}()
	t.Cleanup(func() {
		_ = h3.Close()
		_ = packets.Close()
		<-done
	})
	caFile = filepath.Join(t.TempDir(), "ca.crt")
	block := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: secure.Certificate().Raw})
	if err := os.WriteFile(caFile, block, 0o600); err != nil {
		t.Fatal(err)
	}
	return plain, secure, packets.LocalAddr().String(), caFile
}

// TestGet fetches by every protocol from servers that speak it.
func TestGet(t *testing.T) {
	plain, secure, quicAddress, ca := answerServer(t)
	plainAt, secureAt := plain.Listener.Addr().String(), secure.Listener.Addr().String()
	empty := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	tests := map[string]struct {
		args    []string
		want    string
		wantErr string
	}{
		"HTTP/1.1":          {args: []string{plain.URL + "/x?y"}, want: "HTTP/1.1 GET " + plainAt + " /x?y "},
		"h2c":               {args: []string{"--http2", plain.URL + "/x"}, want: "HTTP/2.0 GET " + plainAt + " /x "},
		"HTTP/2":            {args: []string{"--cacert", ca, "--connect-to", secureAt, "https://example.com/x"}, want: "HTTP/2.0 GET example.com /x "},
		"HTTP/2 asked for":  {args: []string{"--http2", "-k", secure.URL}, want: "HTTP/2.0 GET " + secureAt + " / "},
		"HTTP/3":            {args: []string{"--http3", "--cacert", ca, "--connect-to", quicAddress, "https://example.com/x"}, want: "HTTP/3.0 GET example.com /x "},
		"HTTP/3, no dialer": {args: []string{"--http3", "-k", "https://" + quicAddress + "/x"}, want: "HTTP/3.0 GET " + quicAddress + " /x "},
		"head and method":   {args: []string{"-X", "DELETE", "-H", "x-a: 1", "-H", "Host: b.test", plain.URL}, want: "HTTP/1.1 DELETE b.test / 1"},
		"include":           {args: []string{"-i", plain.URL}, want: "HTTP/1.1 418 I'm a teapot\n"},
		"include fields":    {args: []string{"-i", plain.URL}, want: "\nx-two: b\n\nHTTP/1.1 GET"},
		"unknown CA":        {args: []string{secure.URL}, wantErr: "certificate"},
		"another name":      {args: []string{"--cacert", ca, "--connect-to", secureAt, "https://other.test/"}, wantErr: "other.test"},
		"bad header":        {args: []string{"-H", "novalue", plain.URL}, wantErr: "must be 'name: value'"},
		"no CA file":        {args: []string{"--cacert", "/does/not/exist", plain.URL}, wantErr: "--cacert"},
		"empty CA file":     {args: []string{"--cacert", empty, plain.URL}, wantErr: "holds no PEM certificate"},
		"both":              {args: []string{"--http2", "--http3", plain.URL}, wantErr: "http2 http3"},
		"HTTP/3 without s":  {args: []string{"--http3", plain.URL}, wantErr: "scheme"},
		"out of time":       {args: []string{"-m", "1ns", plain.URL}, wantErr: "deadline exceeded"},
		"no URL":            {args: nil, wantErr: "accepts 1 arg"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			out, err := execute(t, append([]string{"get"}, tt.args...)...)
			switch {
			case tt.wantErr != "" && (err == nil || !strings.Contains(err.Error(), tt.wantErr)):
				t.Errorf("got %v, want %q", err, tt.wantErr)
			case tt.wantErr == "" && (err != nil || !strings.Contains(out, tt.want)):
				t.Errorf("got %q, %v, want %q", out, err, tt.want)
			}
		})
	}
}

// TestMistakes on the command line name the flag and the way out.
func TestMistakes(t *testing.T) {
	folder := t.TempDir()
	tests := map[string]struct {
		args []string
		want string
	}{
		"run without config":   {[]string{"run"}, `"config" not set`},
		"run, no such folder":  {[]string{"run", "--config", "/does/not/exist"}, "--config"},
		"run, log format":      {[]string{"run", "--config", folder, "--log-format", "xml"}, "--log-format is \"xml\"; it must be text or json"},
		"run, log level":       {[]string{"run", "--config", folder, "--log-level", "loud"}, "--log-level"},
		"run, an argument":     {[]string{"run", "--config", folder, "more"}, "more"},
		"validate nothing":     {[]string{"validate"}, "at least 1 arg"},
		"validate, no file":    {[]string{"validate", "/does/not/exist"}, "no such file"},
		"validate, output":     {[]string{"validate", folder, "-o", "xml"}, "--output is \"xml\""},
		"explain, no config":   {[]string{"explain", "GET", "http://a.test/"}, `"config" not set`},
		"explain, no URL":      {[]string{"explain", "--config", folder, "GET"}, "accepts 2 arg"},
		"explain, no scheme":   {[]string{"explain", "--config", folder, "GET", "a.test"}, "must begin with http://"},
		"explain, no listener": {[]string{"explain", "--config", folder, "GET", "http://a.test/"}, "no listener serves http on port 80"},
		"unknown command":      {[]string{"serve"}, "unknown command"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			if out, err := execute(t, tt.args...); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q; printed %s", err, tt.want, out)
			}
		})
	}
}

// TestShown: /config has everything of a report, and no credential.
func TestShown(t *testing.T) {
	const secret = "Basic c2VjcmV0"
	r := &controller.Report{
		Version: 7, Serving: true, Problems: []problem.Problem{{Reason: problem.InvalidRule, Message: "m"}},
		Config: &config.Config{
			Certificates: []*config.Certificate{{Name: "ns/s", Key: config.Secret(secret)}},
			Listeners: []*config.Listener{{Name: "l", Routes: []*config.Route{{Rules: []*config.Rule{{
				Name: "0", Filters: []config.Policy{{Kind: "RequestHeaderModifier", Payload: config.RawJSON(`{"set":[{"name":"authorization","value":"` + secret + `"}]}`)}},
			}}}}}},
		},
	}
	text, err := json.Marshal(shown(r))
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(text, &got); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), secret) || strings.Count(string(text), "[redacted]") != 2 || strings.Count(string(text), `"config"`) != 1 {
		t.Errorf("shown: %s", text)
	}
	if got["version"] != 7.0 || got["serving"] != true || len(got["problems"].([]any)) != 1 {
		t.Errorf("shown: %s", text)
	}
}
