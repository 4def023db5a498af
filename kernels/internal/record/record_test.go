package record

import (
	"reflect"
	"strings"
	"testing"
)

const sample = `{"ImportPath":"m/broken","Action":"build-output","Output":"x.go:1: no\n"}
{"Action":"start","Package":"m/p"}
{"Action":"run","Package":"m/p","Test":"TestA"}
{"Action":"output","Package":"m/p","Test":"TestA","Output":"=== RUN   TestA\n"}
{"Action":"output","Package":"m/p","Test":"TestA","Output":"    a_test.go:7: needs\n"}
{"Action":"output","Package":"m/p","Test":"TestA","Output":"        a reason\n"}
{"Action":"output","Package":"m/p","Test":"TestA","Output":"--- SKIP: TestA (0.00s)\n"}
{"Action":"skip","Package":"m/p","Test":"TestA","Elapsed":0}
{"Action":"run","Package":"m/p","Test":"TestB"}
{"Action":"output","Package":"m/p","Test":"TestB","Output":"panic: no\n"}
{"Action":"output","Package":"m/p","Output":"exit status 2\n"}
{"Action":"fail","Package":"m/p","Elapsed":0.1}
`

func TestRead(t *testing.T) {
	got, err := Read(strings.NewReader(sample))
	if err != nil {
		t.Fatal(err)
	}
	want := []Result{
		{Package: "m/p", Action: "fail", Output: []string{"exit status 2"}},
		{Package: "m/p", Test: "TestA", Action: "skip", Output: []string{"    a_test.go:7: needs", "        a reason"}},
		{Package: "m/p", Test: "TestB", Output: []string{"panic: no"}},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %+v\nwant %+v", got, want)
	}
	if text := got[1].Text(); text != "a_test.go:7: needs a reason" {
		t.Errorf("Text: %q", text)
	}
	if !got[1].Skipped() || got[1].Failed() || !got[2].Failed() {
		t.Error("Skipped or Failed")
	}
}

func TestReadSomethingElse(t *testing.T) {
	if _, err := Read(strings.NewReader("ok  \tm/p\t0.1s\n")); err == nil {
		t.Error("no error")
	}
}
