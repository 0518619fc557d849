package cluster

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	core "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discovery "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

const (
	system        = "gatehouse-system"
	wireAudience  = "gatehouse.dev/controller"
	wireType      = "gatehouse.dev/wire.v1.Config"
	wireName      = "gatehouse-controller." + system + ".svc"
	apiAudience   = "https://kubernetes.default.svc"
	adminPort     = "15020"
	tokenLifetime = int64(600)
)

// testSecrets: a Secret to which no permitted reference leads is nowhere but in the API server, and who has the token of one Gateway's proxy gets
// nothing of another's. It looks at the Gateways of testIsolation.
func testSecrets(t *testing.T, l *lab) {
	// One that nobody refers to, one that is referred to from another namespace without a grant.
	l.apply(t, "", "apiVersion: v1\nkind: Namespace\nmetadata: {name: vault}")
	var marks []string
	for _, name := range []string{"alone", "wanted"} {
		manifest, key := tlsSecret(t, name, name+".vault")
		l.apply(t, "vault", manifest)
		marks = append(marks, name+".vault", secretPart(key))
	}
	l.apply(t, "a", `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: robber}
spec:
  gatewayClassName: gatehouse
  listeners:
  - {name: http, port: 80, protocol: HTTP}
  - {name: https, port: 443, protocol: HTTPS, tls: {certificateRefs: [{name: wanted, namespace: vault}]}}
`)
	l.says(t, gatewayV1, "Gateway", "a", "robber",
		want{"listener https", "ResolvedRefs", "False", "RefNotPermitted"}, want{"listener http", "Programmed", "True", "Programmed"})

	shown := 0
	for _, pod := range l.pods(t) {
		text := l.shownConfig(t, pod)
		shown++
		for _, mark := range marks {
			if strings.Contains(text, mark) {
				t.Errorf("/config of %s/%s has %q", pod.Namespace, pod.Name, mark)
			}
		}
		if key := regexp.MustCompile(`PRIVATE KEY|LS0tLS1CRUdJTiBQUklWQVRF`).FindString(text); key != "" {
			t.Errorf("/config of %s/%s has a private key", pod.Namespace, pod.Name)
		}
	}
	t.Logf("/config of %d proxies and controllers: no trace", shown)
	l.hostile(t, marks)
	l.noSecretReads(t)
	l.remove(t, gatewayV1, "Gateway", "a", "robber")
}

// secretPart is a piece of a key that is its own, as it stands in PEM.
func secretPart(key []byte) string { return strings.Split(string(key), "\n")[1][40:] }

// pods returns the running Pods of controllers and proxies.
func (l *lab) pods(t *testing.T) []corev1.Pod {
	t.Helper()
	list, err := l.kube.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return slices.DeleteFunc(list.Items, func(p corev1.Pod) bool {
		image := p.Spec.Containers[0].Image
		return !strings.HasPrefix(image, "gatehouse") || p.Status.Phase != corev1.PodRunning || p.DeletionTimestamp != nil
	})
}

// shownConfig returns what /config shows, which is for the Pod's own loopback alone.
func (l *lab) shownConfig(t *testing.T, pod corev1.Pod) string {
	t.Helper()
	text, err := l.kubectlDo("exec", "-n", pod.Namespace, pod.Name, "--", "/bin/bash", "-c",
		`exec 3<>/dev/tcp/127.0.0.1/`+adminPort+`; printf 'GET /config HTTP/1.0\r\nHost: 127.0.0.1\r\n\r\n' >&3; cat <&3`)
	if err != nil {
		t.Fatal(err)
	}
	head, body, _ := strings.Cut(text, "\r\n\r\n")
	if !strings.Contains(head, " 200 ") || !json.Valid([]byte(body)) {
		t.Fatalf("/config of %s/%s answers %q", pod.Namespace, pod.Name, text[:min(len(text), 300)])
	}
	return body
}

// hostile speaks the wire with tokens of every kind and reads what comes.
func (l *lab) hostile(t *testing.T, marks []string) {
	twin, other := twins[0], twins[1]
	own := l.podToken(t, twin.namespace, "gatehouse-"+twin.name, wireAudience)
	requests := map[string]*discovery.DeltaDiscoveryRequest{
		"everything": {TypeUrl: wireType},
		"claims to have the other's": {TypeUrl: wireType, InitialResourceVersions: map[string]string{
			"certificate/" + other.namespace + "/tls": "", "certificate/vault/wanted": "x",
		}},
	}
	for name, request := range requests {
		request.Node = &core.Node{Id: "hostile", Cluster: twin.namespace + "/" + twin.name}
		got, err := l.ask(t, own, request)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		var names []string
		certificate := false
		for _, r := range got.GetResources() {
			names = append(names, r.GetName())
			certificate = certificate || r.GetName() == "certificate/"+twin.namespace+"/tls"
			payload := string(r.GetResource().GetValue())
			for _, mark := range append(marks, other.namespace+"/", other.namespace+".") {
				for _, form := range forms(mark) {
					if strings.Contains(r.GetName(), form) || strings.Contains(payload, form) {
						t.Errorf("%s: resource %s has %q", name, r.GetName(), mark)
					}
				}
			}
		}
		if !certificate {
			t.Errorf("%s: the own certificate is not among %q", name, names)
		}
		t.Logf("%s: %d resources, all of its own Gateway", name, len(names))
	}
	mine := twin.namespace + "/" + twin.name
	account := "gatehouse-" + twin.name
	refusals := map[string]struct {
		token, gateway, resource string
		code                     codes.Code
	}{
		"another Gateway than the token's": {own, other.namespace + "/" + other.name, "", codes.PermissionDenied},
		"another's certificate by name":    {own, mine, "certificate/" + other.namespace + "/tls", codes.InvalidArgument},
		"an ungranted one by name":         {own, mine, "certificate/vault/wanted", codes.InvalidArgument},
		"no token":                         {"", mine, "", codes.Unauthenticated},
		"token for the API server":         {l.podToken(t, twin.namespace, account, apiAudience), mine, "", codes.Unauthenticated},
		"token of a backend":               {l.podToken(t, twin.namespace, "default", wireAudience), mine, "", codes.Unauthenticated},
		"token bound to no Pod":            {l.token(t, twin.namespace, account, wireAudience, nil), mine, "", codes.Unauthenticated},
	}
	for name, r := range refusals {
		request := &discovery.DeltaDiscoveryRequest{TypeUrl: wireType, Node: &core.Node{Id: "hostile", Cluster: r.gateway}}
		if r.resource != "" {
			request.ResourceNamesSubscribe = []string{"*", r.resource}
		}
		if got, err := l.ask(t, r.token, request); status.Code(err) != r.code {
			t.Errorf("%s: got %v, %v; want %v", name, got, err, r.code)
		}
	}
}

// forms are how a text may stand in a payload: as it is, and in base64 at each of the three offsets, without the ends that neighbours change.
func forms(text string) []string {
	out := []string{text}
	for pad := range 3 {
		encoded := base64.StdEncoding.EncodeToString([]byte(strings.Repeat("x", pad) + text))
		if len(encoded) > 20 {
			out = append(out, encoded[4:len(encoded)-4])
		}
	}
	return out
}

// ask opens a stream to the leading controller, sends a request and returns the first answer.
func (l *lab) ask(t *testing.T, token string, request *discovery.DeltaDiscoveryRequest) (*discovery.DeltaDiscoveryResponse, error) {
	t.Helper()
	slice, err := l.kube.DiscoveryV1().EndpointSlices(system).Get(t.Context(), "gatehouse-controller", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := l.kube.CoreV1().ConfigMaps(twins[0].namespace).Get(t.Context(), "gatehouse-"+twins[0].name, metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM([]byte(bundle.Data["ca.crt"])) {
		t.Fatalf("no CA in %v", bundle.Data)
	}
	conn, err := grpc.NewClient("passthrough:///"+net.JoinHostPort(slice.Endpoints[0].Addresses[0], strconv.Itoa(int(*slice.Ports[0].Port))),
		grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{RootCAs: roots, ServerName: wireName})))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if token != "" {
		ctx = metadata.AppendToOutgoingContext(ctx, "authorization", "Bearer "+token)
	}
	stream, err := discovery.NewAggregatedDiscoveryServiceClient(conn).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	_ = stream.Send(request) // Recv tells why it failed
	return stream.Recv()
}

// podToken returns a token of a service account that is bound to a Pod that runs as it.
func (l *lab) podToken(t *testing.T, namespace, account, audience string) string {
	t.Helper()
	list, err := l.kube.CoreV1().Pods(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, pod := range list.Items {
		if pod.Spec.ServiceAccountName == account && pod.DeletionTimestamp == nil {
			return l.token(t, namespace, account, audience, &authenticationv1.BoundObjectReference{
				Kind: "Pod", APIVersion: "v1", Name: pod.Name, UID: pod.UID,
			})
		}
	}
	t.Fatalf("no Pod runs as %s/%s", namespace, account)
	return ""
}

func (l *lab) token(t *testing.T, namespace, account, audience string, bound *authenticationv1.BoundObjectReference) string {
	t.Helper()
	lifetime := tokenLifetime
	request, err := l.kube.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{
		Spec: authenticationv1.TokenRequestSpec{Audiences: []string{audience}, ExpirationSeconds: &lifetime, BoundObjectRef: bound},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return request.Status.Token
}

// noSecretReads checks that nobody has listed or watched Secrets, but one by its name, since the gateway was installed.
func (l *lab) noSecretReads(t *testing.T) {
	t.Helper()
	now, err := l.countSecretReads(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	named, err := l.countSecrets(t.Context(), `scope="resource"`)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("lists and watches of Secrets: %v more of many than before the gateway was installed, %v of one by its name", now-l.secretReads, named)
	if now > l.secretReads {
		t.Errorf("somebody listed or watched Secrets %v times since the gateway was installed", now-l.secretReads)
	}
	if named == 0 {
		t.Error("no Secret was read by its name: the metrics are not what they are taken for")
	}
}

// countSecretReads returns how often Secrets of a namespace or of all were listed, and how many watches of them there are.
func (l *lab) countSecretReads(ctx context.Context) (float64, error) {
	return l.countSecrets(ctx, `scope="namespace"`, `scope="cluster"`)
}

// countSecrets adds up what the API server's metrics say of Secrets. A watch counts as a request when it has ended; those under way have a metric
// of their own.
func (l *lab) countSecrets(ctx context.Context, scopes ...string) (float64, error) {
	body, err := l.kube.RESTClient().Get().AbsPath("/metrics").Stream(ctx)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	var sum float64
	seen := map[string]bool{}
	lines := bufio.NewScanner(body)
	lines.Buffer(nil, 1<<20)
	for lines.Scan() {
		line := lines.Text()
		metric, labels, _ := strings.Cut(line, "{")
		if verb := map[string]string{"apiserver_request_total": "LIST", "apiserver_longrunning_requests": "WATCH"}[metric]; verb == "" ||
			!strings.Contains(labels, `verb="`+verb+`"`) {
			continue
		}
		seen[metric] = true
		if !strings.Contains(labels, `resource="secrets"`) || !slices.ContainsFunc(scopes, func(s string) bool { return strings.Contains(labels, s) }) {
			continue
		}
		n, err := strconv.ParseFloat(line[strings.LastIndexByte(line, ' ')+1:], 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", line, err)
		}
		sum += n
	}
	if len(seen) != 2 {
		return 0, fmt.Errorf("the API server's metrics have of two that are needed only %v", seen)
	}
	return sum, lines.Err()
}
