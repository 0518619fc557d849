package hostile

import (
	"encoding/xml"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"gatehouse.dev/gatehouse/test/harness"
)

// deliberate returns the cases of h2spec that the gateway answers in another way than h2spec waits for, with the reason.
func deliberate(down harness.Down) map[string]string {
	if down == harness.H2 {
		return nil
	}
	return map[string]string{
		"http2/3.5: Sends invalid connection preface": "the port speaks HTTP/1.1, too: what is no preface is a request of that, and is answered 400 in it",
	}
}

// report is h2spec's report in JUnit's form.
type report struct {
	Suites []struct {
		Name    string `xml:"name,attr"`
		Package string `xml:"package,attr"`
		Cases   []struct {
			Name    string  `xml:"classname,attr"`
			Failure *string `xml:"failure"`
			Error   *string `xml:"error"`
		} `xml:"testcase"`
	} `xml:"testsuite"`
}

// TestH2Spec runs the public conformance tool for HTTP/2, strict cases included, against the gateway over plain and TLS connections.
func TestH2Spec(t *testing.T) {
	t.Parallel()
	tool, err := filepath.Abs("../../.ci/tools/go.mod")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(tool); err != nil {
		t.Skip("the tools' go.mod is not there: this is a part of the repository")
	}
	if _, err := exec.LookPath("go"); err != nil {
		t.Skip("there is no go command to build h2spec with")
	}
	for _, down := range []harness.Down{harness.H2C, harness.H2} {
		t.Run(string(down), func(t *testing.T) {
			t.Parallel()
			env := harness.New(t, harness.Combo{Down: down, Up: harness.UpH1}, func(w http.ResponseWriter, r *http.Request) {
				_, _ = io.Copy(io.Discard, r.Body)
				_, _ = io.WriteString(w, strings.Repeat("an answer of some length ", 8))
			})
			host, port, err := net.SplitHostPort(env.Address())
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "report.xml")
			args := []string{"tool", "-modfile=" + tool, "h2spec", "--strict", "--host", host, "--port", port, "--junit-report", file, "--timeout", "5"}
			if down.TLS() {
				args = append(args, "--tls", "--insecure")
			}
			cmd := exec.CommandContext(t.Context(), "go", args...)
			cmd.Env = append(os.Environ(), "GOTOOLCHAIN=auto") // the tools may name another release of Go than the one that is installed
			out, _ := cmd.CombinedOutput()                     // it fails when a case does; the report says which
			raw, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v\n%s", err, out)
			}
			judge(t, raw, deliberate(down))
		})
	}
}

// judge holds a report against what is deliberate, both ways.
func judge(t *testing.T, raw []byte, deliberate map[string]string) {
	t.Helper()
	var r report
	if err := xml.Unmarshal(raw, &r); err != nil {
		t.Fatal(err)
	}
	ran, met := 0, map[string]bool{}
	for _, suite := range r.Suites {
		for _, c := range suite.Cases {
			ran++
			name := suite.Package + ": " + c.Name
			failed := c.Failure
			if failed == nil {
				failed = c.Error
			}
			_, known := deliberate[name]
			met[name] = true
			switch {
			case failed != nil && !known:
				t.Errorf("%s: %s", name, *failed)
			case failed == nil && known:
				t.Errorf("%s passes: take it out of deliberate", name)
			}
		}
	}
	if ran < 140 {
		t.Errorf("h2spec ran %d cases, want at least 140", ran)
	}
	for name := range deliberate {
		if !met[name] {
			t.Errorf("deliberate names %q, which h2spec does not have", name)
		}
	}
}
