package behaviour
import ("testing";"fmt";"gatehouse.dev/gatehouse/test/harness")
func TestZZ(t *testing.T) {
	origin := harness.NewRecorder(t, harness.AnswerOK)
	env := harness.New(t, harness.Combo{Down: harness.H1, Up: harness.UpH1}, nil, backend(harness.Cluster("rec", harness.UpH1, origin.Addr)))
	r := harness.MustDo(t, env.Client, harness.Request{Fields: harness.F("TE","trailers","Connection","TE")})
	fmt.Println(r.Status, origin.Bytes())
}
