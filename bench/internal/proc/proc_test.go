package proc

import (
	"bufio"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	tests := map[string]struct {
		line    string
		want    stat
		wantErr string
	}{
		"plain": {
			line: "77 (nginx) S 1 77 77 0 -1 4194560 2 0 0 0 120 30 40 5 20 0 1 0 900 12345 678 18446744073709551615 1 1",
			want: stat{pid: 77, parent: 1, own: 1500 * time.Millisecond, reaped: 450 * time.Millisecond, pages: 678},
		},
		"name with blanks and parentheses": {
			line: "5 (a) b (c)) R 4 5 5 0 -1 0 0 0 0 0 1 2 3 4 20 0 1 0 9 8 7 6",
			want: stat{pid: 5, parent: 4, own: 30 * time.Millisecond, reaped: 70 * time.Millisecond, pages: 7},
		},
		"too short":  {line: "5 (a) R 4 5", wantErr: "no field 14"},
		"no name":    {line: "5 a R 4 5", wantErr: "no name"},
		"no number":  {line: "x (a) R 4 5", wantErr: "begins with no number"},
		"not a time": {line: "5 (a) R 4 5 5 0 -1 0 0 0 0 0 x 2 3 4 20 0 1 0 9 8 7 6", wantErr: "invalid syntax"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := parseStat([]byte(tt.line))
			if tt.wantErr != "" {
				if err == nil || !strings.Contains(err.Error(), tt.wantErr) {
					t.Fatalf("error %v, want %q", err, tt.wantErr)
				}
				return
			}
			if err != nil || got != tt.want {
				t.Errorf("%+v, %v, want %+v", got, err, tt.want)
			}
		})
	}
}

func TestTreeCountsLivingAndReapedDescendantsOnce(t *testing.T) {
	page := int64(os.Getpagesize())
	all := []stat{
		{pid: 2, parent: 1, own: 1, reaped: 10, pages: 1}, // master
		{pid: 9, parent: 1, own: 1000, reaped: 1000, pages: 1000},
		{pid: 4, parent: 3, own: 4, reaped: 40, pages: 4}, // child of a worker, listed before it
		{pid: 3, parent: 2, own: 3, pages: 3},             // worker
	}
	want := Usage{CPU: 58, RSS: 8 * page, Processes: 3}
	if got := tree(all, 2); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
	if got := tree(all, 77); got.Processes != 0 {
		t.Errorf("a process that is not there: %+v", got)
	}
}

func TestParseBusy(t *testing.T) {
	got, err := parseBusy([]byte("cpu  100 20 3 9999 8888 4 5 6 70 8\ncpu0 1 2 3 4 5 6 7 8 9 10\n"))
	if want := 138 * tick; err != nil || got != want {
		t.Errorf("%v, %v, want %v", got, err, want)
	}
	for _, text := range []string{"", "intr 1 2 3 4 5 6 7 8 9", "cpu 1 2 3", "cpu 1 2 3 4 5 6 x 8 9"} {
		if got, err := parseBusy([]byte(text)); err == nil {
			t.Errorf("%q gives %v", text, got)
		}
	}
}

// TestUsageOfBurnedCPU compares with what the process itself says after burning CPU time in a child.
func TestUsageOfBurnedCPU(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("needs /proc")
	}
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell: ", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cpus, err := CPUs()
	if err != nil {
		t.Fatal(err)
	}
	// The inner shell burns and ends, so its time moves to the outer one, which then waits.
	script := `sh -c 'i=0; while [ $i -lt 200000 ]; do i=$((i+1)); done'; grep Cpus_allowed_list /proc/self/status; times; echo; exec sleep 60`
	log := filepath.Join(t.TempDir(), "log")
	p, err := Start(Spec{Path: sh, Args: []string{"-c", script}, CPUs: cpus[:1], Stdout: write, Log: log})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	defer p.Stop(time.Second)
	var lines []string
	for in := bufio.NewScanner(read); in.Scan(); {
		if lines = append(lines, in.Text()); in.Text() == "" {
			break
		}
	}
	if len(lines) < 4 {
		t.Fatalf("the shell said %q", lines)
	}
	if strings.ContainsAny(strings.Fields(lines[0])[1], ",-") {
		t.Errorf("bound to one CPU, the child runs on %s", lines[0])
	}
	// "0m0.210000s 0m0.000000s" of the children
	var said time.Duration
	for _, field := range strings.Fields(lines[2]) {
		d, err := time.ParseDuration(field)
		if err != nil {
			t.Fatal(err)
		}
		said += d
	}
	u, err := p.Usage()
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU < said-3*tick || u.CPU > said+10*tick || said < 3*tick {
		t.Errorf("accounted %v, the shell says its child took %v", u.CPU, said)
	}
	if u.RSS <= 0 || u.Processes != 1 {
		t.Errorf("%+v", u)
	}
}

func TestStopEndsTheGroup(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell: ", err)
	}
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	// Neither the shell nor its child ends on SIGTERM, and both hold the pipe open.
	p, err := Start(Spec{Path: sh, Args: []string{"-c", `trap "" TERM; sleep 60 & echo ready; wait; sleep 60`}, Stdout: write})
	write.Close()
	if err != nil {
		t.Fatal(err)
	}
	in := bufio.NewReader(read)
	if line, err := in.ReadString('\n'); err != nil || line != "ready\n" {
		t.Fatalf("%q, %v", line, err)
	}
	p.Stop(10 * time.Millisecond)
	if _, err := in.ReadByte(); err == nil {
		t.Error("a process of the group still writes")
	}
	if _, err := p.Usage(); err == nil && runtime.GOOS == "linux" {
		t.Error("a stopped process has a usage")
	}
}

func TestExplainNamesTheEndAndTheLog(t *testing.T) {
	sh, err := exec.LookPath("sh")
	if err != nil {
		t.Skip("needs a shell: ", err)
	}
	p, err := Start(Spec{Path: sh, Args: []string{"-c", "echo no such directive >&2; exit 3"}, Log: filepath.Join(t.TempDir(), "log")})
	if err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	if text := p.Explain().Error(); !strings.Contains(text, "exit status 3") || !strings.Contains(text, "no such directive") {
		t.Errorf("%s", text)
	}
}
