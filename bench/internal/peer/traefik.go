package peer

import (
	"encoding/json"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
)

// traefik takes what is fixed from its command line and its routes from a file that it watches.
type traefik struct{}

// Inspect implements Proxy.
func (traefik) Inspect(path string) (string, map[Need]string, error) {
	out, err := ask(path, "version")
	return strings.TrimPrefix(word(out, "Version:"), "v"), nil, err
}

// Configure implements Proxy.
func (t traefik) Configure(_ *Peer, s *Setup) (Command, error) {
	args := []string{
		"--global.checkNewVersion=false", "--global.sendAnonymousUsage=false", "--log.level=ERROR",
		"--entryPoints.plain.address=" + loopback(s.Plain), "--entryPoints.secure.address=" + loopback(s.TLS),
		"--entryPoints.secure.http.tls=true",
		"--serversTransport.maxIdleConnsPerHost=1024",
		"--providers.file.filename=" + filepath.Join(s.Dir, "routes.yaml"),
	}
	for _, e := range []string{"plain", "secure"} {
		args = append(args, "--entryPoints."+e+".transport.respondingTimeouts.readTimeout=0", "--entryPoints."+e+".transport.lifeCycle.graceTimeOut=1")
	}
	if s.H3 {
		args = append(args, "--entryPoints.secure.http3=true")
	}
	if s.Features {
		args = append(args, "--accessLog=true", "--accessLog.filePath="+filepath.Join(s.Dir, "access.log"), "--accessLog.format=json",
			"--accessLog.bufferingSize=100",
			"--entryPoints.admin.address="+loopback(s.Admin), "--metrics.prometheus=true", "--metrics.prometheus.entryPoint=admin",
			"--tracing=true", "--tracing.sampleRate=0.01", "--tracing.otlp=true", "--tracing.otlp.http=true",
			"--tracing.otlp.http.endpoint="+s.Collector+"/v1/traces")
	}
	return Command{Args: args}, t.write(s)
}

// Reload implements Proxy. Traefik takes over a changed file at most every two seconds.
func (t traefik) Reload(_ *Peer, s *Setup, _ func(syscall.Signal) error) error { return t.write(s) }

// write writes the routes: JSON, which is YAML.
func (traefik) write(s *Setup) error {
	scheme := "http://"
	if s.GRPC {
		scheme = "h2c://"
	}
	routers, middlewares := object{}, object{}
	if s.Routes == 0 {
		routers["all"] = object{"rule": "PathPrefix(`/`)", "service": "origin"}
	} else {
		middlewares["cut"] = object{"stripPrefixRegex": object{"regex": []string{"^/r[0-9]+"}}}
	}
	for i := range s.Routes {
		prefix, tenant := Route(i)
		use := []string{"cut"}
		if i == 0 && s.Version > 0 {
			middlewares["version"] = object{"headers": object{"customRequestHeaders": object{"X-Version": fmt.Sprint(s.Version)}}}
			use = append(use, "version")
		}
		routers[fmt.Sprint("route-", i)] = object{
			"rule": fmt.Sprintf("PathPrefix(`%s/`) && Header(`X-Tenant`, `%s`)", prefix, tenant), "service": "origin", "middlewares": use,
		}
	}
	web := object{
		"routers":  routers,
		"services": object{"origin": object{"loadBalancer": object{"servers": []object{{"url": scheme + s.Origin}}}}},
	}
	if len(middlewares) > 0 {
		web["middlewares"] = middlewares
	}
	text, err := json.MarshalIndent(object{
		"http": web,
		"tls": object{
			"options": object{"default": object{"minVersion": "VersionTLS13", "curvePreferences": []string{"X25519", "CurveP256"}}},
			"stores":  object{"default": object{"defaultCertificate": object{"certFile": s.Cert, "keyFile": s.Key}}},
		},
	}, "", " ")
	if err != nil {
		return err
	}
	return writeFile(s.Dir, "routes.yaml", string(text))
}
