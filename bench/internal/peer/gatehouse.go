package peer

import (
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// gatehouse reads a folder of Gateway API objects and follows its changes.
type gatehouse struct{}

// routesPerFile keeps a folder of many routes readable.
const routesPerFile = 100

// Inspect implements Proxy.
func (gatehouse) Inspect(path string) (string, map[Need]string, error) {
	out, err := ask(path, "--version")
	return word(out, "version "), nil, err
}

// Configure implements Proxy.
func (g gatehouse) Configure(_ *Peer, s *Setup) (Command, error) {
	dir := filepath.Join(s.Dir, "objects")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Command{}, err
	}
	base, err := g.base(s)
	if err != nil {
		return Command{}, err
	}
	if err := writeFile(dir, "gateway.yaml", base); err != nil {
		return Command{}, err
	}
	if s.Routes == 0 {
		err = writeFile(dir, "route.yaml", gatehouseRoute("all", `[{path: {type: PathPrefix, value: /}}]`, ""))
	}
	for first := 0; first < s.Routes && err == nil; first += routesPerFile {
		err = g.writeRoutes(dir, s, first)
	}
	if err != nil {
		return Command{}, err
	}
	c := Command{Args: []string{"run", "--config", dir, "--admin", loopback(s.Admin), "--drain-time", "100ms", "--access-log", ""}}
	if s.Features {
		c.Args[len(c.Args)-1] = filepath.Join(s.Dir, "access.log")
		c.Env = []string{"OTEL_EXPORTER_OTLP_ENDPOINT=" + s.Collector, "OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf",
			"OTEL_TRACES_SAMPLER=parentbased_traceidratio", "OTEL_TRACES_SAMPLER_ARG=0.01"}
	}
	return c, nil
}

// Reload implements Proxy: the gateway sees that the file with the first route is another one.
func (g gatehouse) Reload(_ *Peer, s *Setup, _ func(syscall.Signal) error) error {
	return g.writeRoutes(filepath.Join(s.Dir, "objects"), s, 0)
}

// writeRoutes writes the file of the routes from first on.
func (gatehouse) writeRoutes(dir string, s *Setup, first int) error {
	var b strings.Builder
	for i := first; i < min(first+routesPerFile, s.Routes); i++ {
		prefix, tenant := Route(i)
		matches := fmt.Sprintf("[{path: {type: PathPrefix, value: %s}, headers: [{name: x-tenant, value: %s}]}]", prefix, tenant)
		filters := `
    - type: URLRewrite
      urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}`
		if i == 0 && s.Version > 0 {
			filters += fmt.Sprintf(`
    - type: RequestHeaderModifier
      requestHeaderModifier: {set: [{name: x-version, value: "%d"}]}`, s.Version)
		}
		b.WriteString(gatehouseRoute(fmt.Sprintf("route-%d", i), matches, filters))
	}
	return writeFile(dir, fmt.Sprintf("routes-%d.yaml", first), b.String())
}

func gatehouseRoute(name, matches, filters string) string {
	if filters != "" {
		filters = "\n    filters:" + filters
	}
	return fmt.Sprintf(`---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: %s}
spec:
  parentRefs: [{name: edge}]
  rules:
  - matches: %s%s
    backendRefs: [{name: origin, port: 80}]
`, name, matches, filters)
}

func (gatehouse) base(s *Setup) (string, error) {
	_, port, err := net.SplitHostPort(s.Origin)
	if err != nil {
		return "", err
	}
	var pem [2]string
	for i, path := range []string{s.Cert, s.Key} {
		text, err := os.ReadFile(path)
		if err != nil {
			return "", err
		}
		pem[i] = base64.StdEncoding.EncodeToString(text)
	}
	protocol := ""
	if s.GRPC {
		protocol = ", appProtocol: kubernetes.io/h2c"
	}
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1
kind: GatewayClass
metadata: {name: gatehouse}
spec: {controllerName: gatehouse.dev/controller}
---
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge}
spec:
  gatewayClassName: gatehouse
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners:
  - {name: http, port: %d, protocol: HTTP}
  - {name: https, port: %d, protocol: HTTPS, tls: {certificateRefs: [{name: certificate}]}}
---
apiVersion: v1
kind: Secret
metadata: {name: certificate}
type: kubernetes.io/tls
data: {tls.crt: %s, tls.key: %s}
---
apiVersion: v1
kind: Service
metadata: {name: origin}
spec: {ports: [{name: http, port: 80%s}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: origin-1, labels: {kubernetes.io/service-name: origin}}
addressType: IPv4
ports: [{name: http, port: %s}]
endpoints: [{addresses: [127.0.0.1]}]
`, s.Plain, s.TLS, pem[0], pem[1], protocol, port), nil
}
