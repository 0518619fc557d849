package peer

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
)

// nginx runs as a master and one worker.
type nginx struct{}

// Inspect implements Proxy.
func (nginx) Inspect(path string) (string, map[Need]string, error) {
	out, err := ask(path, "-V")
	lacks := map[Need]string{}
	if !strings.Contains(out, "http_v3_module") {
		lacks[NeedH3] = "built without --with-http_v3_module"
	}
	return strings.TrimPrefix(word(out, "nginx version: "), "nginx/"), lacks, err
}

// Configure implements Proxy.
func (n nginx) Configure(p *Peer, s *Setup) (Command, error) {
	c := Command{Args: []string{"-p", s.Dir, "-c", filepath.Join(s.Dir, "nginx.conf"), "-e", filepath.Join(s.Dir, "error.log")}}
	return c, n.write(p, s)
}

// Reload implements Proxy.
func (n nginx) Reload(p *Peer, s *Setup, signal func(syscall.Signal) error) error {
	if err := n.write(p, s); err != nil {
		return err
	}
	return signal(syscall.SIGHUP)
}

func (nginx) write(p *Peer, s *Setup) error {
	var b strings.Builder
	err := template.Must(template.New("nginx").Parse(nginxConf)).Execute(&b, map[string]any{
		"S": s, "Root": os.Geteuid() == 0, "HTTP2On": atLeast(p.Version, 1, 25, 1), "Routes": nginxRoutes(s),
	})
	if err != nil {
		return err
	}
	return writeFile(s.Dir, "nginx.conf", b.String())
}

// atLeast compares a version "1.22.1" by its numbers.
func atLeast(version string, want ...int) bool {
	for i, part := range strings.SplitN(version, ".", len(want)) {
		var n int
		if _, err := fmt.Sscanf(part, "%d", &n); err != nil || n < want[i] {
			return false
		}
		if n > want[i] {
			return true
		}
	}
	return true
}

// nginxRoutes is a location for each route. They are prefixes, which nginx looks up in a tree.
func nginxRoutes(s *Setup) string {
	var b strings.Builder
	for i := range s.Routes {
		prefix, tenant := Route(i)
		fmt.Fprintf(&b, "    location %s/ {\n      if ($http_x_tenant != %q) { return 404; }\n      rewrite ^%s(/.*)$ $1 break;\n", prefix, tenant, prefix)
		if i == 0 && s.Version > 0 {
			// A location's own fields take the place of all that it would inherit.
			fmt.Fprintf(&b, "%s      proxy_set_header X-Version %d;\n", nginxFields, s.Version)
		}
		b.WriteString("      proxy_pass http://origin;\n    }\n")
	}
	return b.String()
}

const nginxFields = `    proxy_set_header Host $http_host;
    proxy_set_header Connection "";
    proxy_set_header X-Forwarded-For $remote_addr;
    proxy_set_header X-Forwarded-Proto $scheme;
    proxy_set_header X-Forwarded-Host $http_host;
`

const nginxConf = `daemon off;
{{if .Root}}user root;{{end}}
worker_processes 1;
pid nginx.pid;
error_log error.log error;
events { worker_connections 16384; }
http {
  client_body_temp_path body; proxy_temp_path proxy; fastcgi_temp_path fastcgi; uwsgi_temp_path uwsgi; scgi_temp_path scgi;
{{if .S.Features}}
  log_format bench '$time_iso8601 $request_time $status $request_method $host $request_uri $server_protocol $request_length $body_bytes_sent '
    '$upstream_addr $upstream_response_time $remote_addr:$remote_port "$http_user_agent"';
  access_log access.log bench buffer=64k flush=1s;
{{else}}
  access_log off;
{{end}}
  keepalive_timeout 120s;
  keepalive_requests 1000000000;
  client_max_body_size 0;
  tcp_nodelay on;

  ssl_certificate {{.S.Cert}};
  ssl_certificate_key {{.S.Key}};
  ssl_protocols TLSv1.3;
  ssl_conf_command Ciphersuites TLS_AES_128_GCM_SHA256;
  ssl_ecdh_curve X25519:prime256v1;
  ssl_session_tickets on;

  upstream origin {
    server {{.S.Origin}};
    keepalive 1024;
    keepalive_requests 1000000000;
    keepalive_timeout 60s;
  }
{{if .S.LargeBodies}}
  proxy_buffer_size 256k;
  proxy_buffers 8 256k;
  proxy_busy_buffers_size 512k;
  client_body_buffer_size 256k;
{{end}}
{{if .S.Upgrades}}
  map $http_upgrade $connection_upgrade { default upgrade; '' ''; }
{{end}}
  server {
    listen 127.0.0.1:{{.S.Plain}};
    listen 127.0.0.1:{{.S.TLS}} ssl{{if not .HTTP2On}} http2{{end}};
{{if .HTTP2On}}
    http2 on;
{{end}}
{{if .S.H3}}
    listen 127.0.0.1:{{.S.TLS}} quic reuseport;
    http3 on;
    quic_gso on;
{{end}}
    proxy_http_version 1.1;
    proxy_request_buffering off;
    proxy_max_temp_file_size 0;
{{if .S.Upgrades}}
    proxy_set_header Host $http_host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_upgrade;
{{else}}
` + nginxFields + `
{{end}}
{{if .S.GRPC}}
    location / { grpc_pass grpc://origin; }
{{else if .Routes}}
{{.Routes}}
{{else}}
    location / { proxy_pass http://origin; }
{{end}}
  }
}
`
