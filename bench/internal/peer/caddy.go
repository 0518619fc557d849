package peer

import (
	"bytes"
	"context"
	"debug/buildinfo"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"syscall"
)

// caddy is configured by JSON, which its own format is translated into.
type caddy struct{}

// object is a JSON object.
type object = map[string]any

// Inspect implements Proxy.
func (caddy) Inspect(path string) (string, map[Need]string, error) {
	out, err := ask(path, "version")
	version := word(out, "")
	if version == "unknown" { // built by go install, which leaves the version in the program's build information only
		info, err := buildinfo.ReadFile(path)
		if err != nil {
			return "", nil, err
		}
		version = info.Main.Version
	}
	return strings.TrimPrefix(version, "v"), nil, err
}

// Configure implements Proxy.
func (c caddy) Configure(_ *Peer, s *Setup) (Command, error) {
	text, err := json.MarshalIndent(c.config(s), "", " ")
	if err != nil {
		return Command{}, err
	}
	return Command{
		Args: []string{"run", "--config", filepath.Join(s.Dir, "caddy.json")},
		Env:  []string{"XDG_DATA_HOME=" + s.Dir, "XDG_CONFIG_HOME=" + s.Dir},
	}, writeFile(s.Dir, "caddy.json", string(text))
}

// Reload implements Proxy.
func (c caddy) Reload(_ *Peer, s *Setup, _ func(syscall.Signal) error) error {
	text, err := json.Marshal(c.config(s))
	if err != nil {
		return err
	}
	client := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", filepath.Join(s.Dir, "admin"))
		},
	}}
	request, err := http.NewRequest(http.MethodPost, "http://admin/load", bytes.NewReader(text))
	if err != nil {
		return err
	}
	request.Header.Set("Content-Type", "application/json")
	response, err := client.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(response.Body, 300))
		return fmt.Errorf("caddy refuses its configuration: %s %s", response.Status, text)
	}
	return nil
}

func (c caddy) config(s *Setup) object {
	protocols := []string{"h1", "h2"}
	if s.H3 {
		protocols = append(protocols, "h3")
	}
	server := func(port int) object {
		o := object{
			"listen":          []string{loopback(port)},
			"protocols":       protocols,
			"automatic_https": object{"disable": true},
			"routes":          c.routes(s),
		}
		if s.Features {
			o["logs"] = object{}
		}
		return o
	}
	plain, secure := server(s.Plain), server(s.TLS)
	plain["protocols"] = []string{"h1"}
	secure["tls_connection_policies"] = []object{{"protocol_min": "tls1.3", "curves": []string{"x25519", "secp256r1"}}}
	web := object{"servers": object{"plain": plain, "secure": secure}, "grace_period": "1s"}
	logs := object{"default": object{"level": "ERROR"}}
	if s.Features {
		web["metrics"] = object{}
		logs["default"] = object{"level": "ERROR", "exclude": []string{"http.log.access"}}
		logs["access"] = object{
			"include": []string{"http.log.access"},
			"writer":  object{"output": "file", "filename": filepath.Join(s.Dir, "access.log"), "roll": false},
			"encoder": object{"format": "json"},
		}
	}
	admin := object{"disabled": true}
	if s.Reloads {
		admin = object{"listen": "unix/" + filepath.Join(s.Dir, "admin"), "config": object{"persist": false}}
	}
	return object{
		"admin":   admin,
		"logging": object{"logs": logs},
		"storage": object{"module": "file_system", "root": filepath.Join(s.Dir, "storage")},
		"apps": object{
			"http": web,
			"tls":  object{"certificates": object{"load_files": []object{{"certificate": s.Cert, "key": s.Key}}}},
		},
	}
}

func (caddy) routes(s *Setup) []object {
	transport := object{"protocol": "http", "keep_alive": object{"max_idle_conns_per_host": 1024}}
	if s.GRPC {
		transport["versions"] = []string{"h2c", "2"}
	}
	forward := object{"handler": "reverse_proxy", "upstreams": []object{{"dial": s.Origin}}, "transport": transport}
	if s.Routes == 0 {
		return []object{{"handle": []object{forward}}}
	}
	var list []object
	for i := range s.Routes {
		prefix, tenant := Route(i)
		handle := []object{{"handler": "rewrite", "strip_path_prefix": prefix}}
		if i == 0 && s.Version > 0 {
			handle = append(handle, object{"handler": "headers", "request": object{"set": object{"X-Version": []string{fmt.Sprint(s.Version)}}}})
		}
		list = append(list, object{
			"match":    []object{{"path": []string{prefix + "/*"}, "header": object{"X-Tenant": []string{tenant}}}},
			"handle":   append(handle, forward),
			"terminal": true,
		})
	}
	return list
}
