package peer

import (
	"encoding/json"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
)

// program writes a script that answers like a proxy asked for its version.
func program(t *testing.T, name, says string) string {
	t.Helper()
	if runtime.GOOS == "windows" {
		t.Skip("needs a shell")
	}
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte("#!/bin/sh\ncat >&2 <<'END'\n"+says+"\nEND\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestInspect(t *testing.T) {
	tests := map[string]struct {
		proxy      Proxy
		says       string
		version    string
		lacksHTTP3 string
	}{
		"gatehouse":     {gatehouse{}, "gatehouse version v0.3.0-5-g1234567", "v0.3.0-5-g1234567", ""},
		"old nginx":     {nginx{}, "nginx version: nginx/1.22.1\nconfigure arguments: --with-http_v2_module", "1.22.1", "http_v3_module"},
		"new nginx":     {nginx{}, "nginx version: nginx/1.31.5\nconfigure arguments: --with-http_v3_module", "1.31.5", ""},
		"debian's":      {haproxy{}, "HAProxy version 2.6.12-1+deb12u4 2026/10/17 - x\nFeature list : -QUIC +SLZ", "2.6.12", "USE_QUIC"},
		"development's": {haproxy{}, "HAProxy version 3.5-dev5-50872daa6 2026/08/21 - x\nFeature list : +QUIC", "3.5-dev5", ""},
		"caddy":         {caddy{}, "v2.11.0 h1:abc=", "2.11.0", ""},
		"traefik":       {traefik{}, "Version:      3.7.1\nCodename:     x", "3.7.1", ""},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			version, lacks, err := tt.proxy.Inspect(program(t, "proxy", tt.says))
			if err != nil || version != tt.version {
				t.Errorf("version %q, %v, want %q", version, err, tt.version)
			}
			if why := lacks[NeedH3]; !strings.Contains(why, tt.lacksHTTP3) || tt.lacksHTTP3 == "" && why != "" {
				t.Errorf("HTTP/3: %q, want %q", why, tt.lacksHTTP3)
			}
		})
	}
}

func TestFind(t *testing.T) {
	ours := program(t, "gatehouse", "gatehouse version v1")
	old, recent := program(t, "nginx", "nginx version: nginx/1.22.1"), program(t, "nginx", "nginx version: nginx/1.31.5 http_v3_module")
	env := map[string]string{"BENCH_GATEHOUSE": "new=" + ours + "," + ours, "BENCH_NGINX": old + "," + recent + ",tuned=" + recent + "," + old}
	peers, notes, err := Find(func(name string) string { return env[name] }, []string{"gatehouse", "nginx"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, p := range peers {
		names = append(names, p.Name)
	}
	want := "gatehouse new|gatehouse|nginx 1.22.1|nginx 1.31.5|nginx tuned|nginx 1.22.1 (2)"
	if got := strings.Join(names, "|"); got != want || len(notes) > 0 {
		t.Errorf("%s, %q, want %s", got, notes, want)
	}
	if peers[2].Lacks(NeedH3) == "" || peers[3].Lacks(NeedH3) != "" {
		t.Errorf("HTTP/3: %q, %q", peers[2].Lacks(NeedH3), peers[3].Lacks(NeedH3))
	}
	env["BENCH_NGINX"] = filepath.Join(t.TempDir(), "none")
	if _, _, err := Find(func(name string) string { return env[name] }, nil); err == nil || !strings.Contains(err.Error(), "BENCH_NGINX") {
		t.Errorf("a path that names nothing: %v", err)
	}
	if _, _, err := Find(os.Getenv, []string{"ngnix"}); err == nil || !strings.Contains(err.Error(), "ngnix") {
		t.Errorf("a kind that is not known: %v", err)
	}
	t.Setenv("PATH", t.TempDir())
	if peers, notes, err = Find(func(string) string { return "" }, []string{"caddy"}); err != nil || len(peers) > 0 || !strings.Contains(strings.Join(notes, ""), "BENCH_CADDY") {
		t.Errorf("a peer that is not there: %v, %q, %v", peers, notes, err)
	}
}

func TestAtLeast(t *testing.T) {
	for version, want := range map[string]bool{
		"1.22.1": false, "1.25.0": false, "1.25.1": true, "1.25.10": true, "1.26.0": true, "2.0": true, "1.31.5": true, "": false, "dev": false,
	} {
		if got := atLeast(version, 1, 25, 1); got != want {
			t.Errorf("%q: %v", version, got)
		}
	}
}

// TestConfigure looks at what each setup asks for in the files that come of it. That the proxies take them is for the tests that start them.
func TestConfigure(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "cert.pem"), filepath.Join(dir, "key.pem")
	for _, path := range []string{cert, key} {
		if err := os.WriteFile(path, []byte(filepath.Base(path)+"\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	old, recent := &Peer{Kind: "nginx", Version: "1.22.1"}, &Peer{Kind: "nginx", Version: "1.31.5"}
	tests := map[string]struct {
		proxy Proxy
		peer  *Peer
		setup Setup
		file  string
		has   []string
		hasNo []string
	}{
		"gatehouse":         {gatehouse{}, nil, Setup{}, "objects/route.yaml", []string{"value: /}"}, []string{"filters"}},
		"gatehouse base":    {gatehouse{}, nil, Setup{GRPC: true}, "objects/gateway.yaml", []string{"port: 81", "kubernetes.io/h2c", "Y2VydC5wZW0K", "port: 9000"}, nil},
		"gatehouse routes":  {gatehouse{}, nil, Setup{Routes: 101, Version: 7}, "objects/routes-0.yaml", []string{"value: /r99}", "value: t9}", `"7"`}, []string{"/r100}"}},
		"gatehouse 2":       {gatehouse{}, nil, Setup{Routes: 101}, "objects/routes-100.yaml", []string{"value: /r100}"}, []string{"/r99}"}},
		"nginx 1.22":        {nginx{}, old, Setup{}, "nginx.conf", []string{"ssl http2;", "access_log off", "proxy_pass http://origin"}, []string{"quic", "http2 on", "grpc"}},
		"nginx 1.31":        {nginx{}, recent, Setup{H3: true, Features: true}, "nginx.conf", []string{"http2 on;", "quic", "access_log access.log"}, []string{"ssl http2"}},
		"nginx routes":      {nginx{}, recent, Setup{Routes: 3, Version: 7}, "nginx.conf", []string{"location /r2/", `!= "t2"`, "X-Version 7"}, []string{"location / "}},
		"nginx grpc":        {nginx{}, recent, Setup{GRPC: true}, "nginx.conf", []string{"grpc_pass"}, []string{"proxy_pass"}},
		"haproxy":           {haproxy{}, &Peer{}, Setup{}, "haproxy.cfg", []string{"server origin 127.0.0.1:9000\n", "alpn h2"}, []string{"quic", "log", "tune", "map"}},
		"haproxy features":  {haproxy{}, &Peer{}, Setup{Features: true, LargeBodies: true, GRPC: true}, "haproxy.cfg", []string{"option httplog", "tune.bufsize", "proto h2"}, nil},
		"haproxy map":       {haproxy{}, &Peer{}, Setup{Routes: 3}, "routes.map", []string{"/r2/ t2\n"}, nil},
		"haproxy change":    {haproxy{}, &Peer{}, Setup{Routes: 3, Version: 7}, "haproxy.cfg", []string{"X-Version 7", "routes.map"}, nil},
		"haproxy bundle":    {haproxy{}, &Peer{}, Setup{}, "bundle.pem", []string{"cert.pem\nkey.pem\n"}, nil},
		"caddy":             {caddy{}, nil, Setup{}, "caddy.json", []string{`"disabled": true`, "127.0.0.1:9000"}, []string{"h3", "access", "h2c"}},
		"caddy everything":  {caddy{}, nil, Setup{H3: true, Features: true, GRPC: true, Reloads: true, Routes: 2, Version: 7}, "caddy.json", []string{`"h3"`, "access.log", "h2c", "unix/", "/r1/*", "X-Version"}, nil},
		"traefik":           {traefik{}, nil, Setup{}, "routes.yaml", []string{"http://127.0.0.1:9000"}, []string{"middlewares"}},
		"traefik with both": {traefik{}, nil, Setup{GRPC: true, Routes: 2, Version: 7}, "routes.yaml", []string{"h2c://127.0.0.1:9000", "/r1/", "X-Version"}, nil},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := tt.setup
			s.Dir, s.Plain, s.TLS, s.Admin, s.Cert, s.Key, s.Origin = t.TempDir(), 81, 82, 83, cert, key, "127.0.0.1:9000"
			s.Collector = "http://127.0.0.1:9001"
			command, err := tt.proxy.Configure(tt.peer, &s)
			if err != nil || len(command.Args) == 0 {
				t.Fatalf("%q, %v", command.Args, err)
			}
			text, err := os.ReadFile(filepath.Join(s.Dir, tt.file))
			if err != nil {
				t.Fatal(err)
			}
			for _, want := range tt.has {
				if !strings.Contains(string(text), want) {
					t.Errorf("no %q in\n%s", want, text)
				}
			}
			for _, not := range tt.hasNo {
				if strings.Contains(string(text), not) {
					t.Errorf("%q in\n%s", not, text)
				}
			}
			if strings.HasSuffix(tt.file, "json") && !json.Valid(text) {
				t.Errorf("no JSON:\n%s", text)
			}
		})
	}
}

func TestFeaturesReachGatehouse(t *testing.T) {
	s := Setup{Dir: t.TempDir(), Features: true, Origin: "127.0.0.1:1", Collector: "http://127.0.0.1:2"}
	s.Cert, s.Key = program(t, "c", ""), program(t, "k", "")
	c, err := gatehouse{}.Configure(nil, &s)
	if err != nil {
		t.Fatal(err)
	}
	if all := strings.Join(append(c.Args, c.Env...), " "); !strings.Contains(all, "access.log") || !strings.Contains(all, "ARG=0.01") {
		t.Errorf("%s", all)
	}
	s.Features = false
	if c, err = (gatehouse{}).Configure(nil, &s); err != nil || c.Args[len(c.Args)-1] != "" || len(c.Env) > 0 {
		t.Errorf("bare: %q %q, %v", c.Args, c.Env, err)
	}
}
