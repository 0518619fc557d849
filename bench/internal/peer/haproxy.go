package peer

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"text/template"
	"time"
)

// haproxy runs as a master and one worker with one thread.
type haproxy struct{}

// Inspect implements Proxy.
func (haproxy) Inspect(path string) (string, map[Need]string, error) {
	out, err := ask(path, "-vv")
	lacks := map[Need]string{}
	if !strings.Contains(out, "+QUIC") {
		lacks[NeedH3] = "built without USE_QUIC"
	}
	// "3.2.4-1+deb13u1" is 3.2.4 to its makers; "3.3-dev7-50872daa6" is not yet 3.3.
	version, rest, _ := strings.Cut(word(out, "HAProxy version "), "-")
	if suffix, _, _ := strings.Cut(rest, "-"); strings.HasPrefix(suffix, "dev") {
		version += "-" + suffix
	}
	return version, lacks, err
}

// Configure implements Proxy.
func (h haproxy) Configure(p *Peer, s *Setup) (Command, error) {
	c := Command{Args: []string{"-W", "-db", "-f", filepath.Join(s.Dir, "haproxy.cfg")}}
	if s.Reloads {
		c.Args = append(c.Args, "-S", filepath.Join(s.Dir, "master"))
	}
	// It wants key and certificate in one file.
	var bundle []byte
	for _, path := range []string{s.Cert, s.Key} {
		text, err := os.ReadFile(path)
		if err != nil {
			return c, err
		}
		bundle = append(bundle, text...)
	}
	if err := writeFile(s.Dir, "bundle.pem", string(bundle)); err != nil {
		return c, err
	}
	return c, h.write(p, s)
}

// Reload implements Proxy: it asks the master over its socket. A signal, the other way, is lost while the master starts itself anew.
func (h haproxy) Reload(p *Peer, s *Setup, _ func(syscall.Signal) error) error {
	if err := h.write(p, s); err != nil {
		return err
	}
	deadline := time.Now().Add(10 * time.Second)
	conn, err := net.Dial("unix", filepath.Join(s.Dir, "master"))
	for err != nil && time.Now().Before(deadline) { // the master opens it when its workers serve already
		time.Sleep(10 * time.Millisecond)
		conn, err = net.Dial("unix", filepath.Join(s.Dir, "master"))
	}
	if err != nil {
		return err
	}
	defer conn.Close()
	_ = conn.SetDeadline(deadline)
	if _, err := io.WriteString(conn, "reload\n"); err != nil {
		return err
	}
	// Newer ones answer when it is done, older ones close the connection when they begin.
	answer, err := io.ReadAll(conn)
	if strings.Contains(string(answer), "Success=0") {
		return fmt.Errorf("haproxy refuses its configuration: %.300s", answer)
	}
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

func (haproxy) write(p *Peer, s *Setup) error {
	if s.Routes > 0 {
		// Prefixes in a map file are looked up in a tree; a line of configuration for each would be tried one after another.
		var b strings.Builder
		for i := range s.Routes {
			prefix, tenant := Route(i)
			fmt.Fprintf(&b, "%s/ %s\n", prefix, tenant)
		}
		if err := writeFile(s.Dir, "routes.map", b.String()); err != nil {
			return err
		}
	}
	var b strings.Builder
	err := template.Must(template.New("haproxy").Parse(haproxyConf)).Execute(&b, map[string]any{
		"S": s, "LimitedQUIC": s.H3 && p.limitedQUIC(),
	})
	if err != nil {
		return err
	}
	return writeFile(s.Dir, "haproxy.cfg", b.String())
}

// limitedQUIC reports whether the build speaks QUIC by a layer over a TLS library that has no QUIC of its own, which must be asked for.
func (p *Peer) limitedQUIC() bool {
	out, err := ask(p.Path, "-vv")
	return err == nil && strings.Contains(out, "+QUIC_OPENSSL_COMPAT")
}

const haproxyConf = `global
  nbthread 1
  # Room for 10,000 clients with two descriptors each, where the system allows so many; it then takes what there is.
  maxconn 12000
  no strict-limits
  ssl-default-bind-options ssl-min-ver TLSv1.3
  ssl-default-bind-ciphersuites TLS_AES_128_GCM_SHA256
  ssl-default-bind-curves X25519:P-256
{{- if .LimitedQUIC}}
  limited-quic
{{- end}}
{{- if .S.LargeBodies}}
  tune.bufsize 65536
{{- end}}
{{- if .S.Features}}
  log stdout format raw local0
{{- end}}
defaults
  mode http
  http-reuse always
  timeout connect 5s
  timeout client 120s
  timeout server 120s
  timeout http-keep-alive 120s
  timeout tunnel 120s
{{- if .S.Features}}
  log global
  option httplog
{{- end}}
frontend edge
  bind 127.0.0.1:{{.S.Plain}}
  bind 127.0.0.1:{{.S.TLS}} ssl crt {{.S.Dir}}/bundle.pem alpn h2,http/1.1
{{- if .S.H3}}
  bind quic4@127.0.0.1:{{.S.TLS}} ssl crt {{.S.Dir}}/bundle.pem alpn h3
{{- end}}
  option forwardfor
  http-request set-header X-Forwarded-Proto http if !{ ssl_fc }
  http-request set-header X-Forwarded-Proto https if { ssl_fc }
  http-request set-header X-Forwarded-Host %[req.hdr(host)]
{{- if .S.Routes}}
  http-request set-var(txn.tenant) path,map_beg({{.S.Dir}}/routes.map)
  http-request deny deny_status 404 unless { var(txn.tenant) -m found }
  http-request deny deny_status 404 unless { req.hdr(x-tenant),strcmp(txn.tenant) eq 0 }
{{- if .S.Version}}
  http-request set-header X-Version {{.S.Version}} if { path_beg /r0/ }
{{- end}}
  http-request replace-path ^/r[0-9]+(/.*)$ \1
{{- end}}
  default_backend origin
backend origin
  server origin {{.S.Origin}}{{if .S.GRPC}} proto h2{{end}}
`
