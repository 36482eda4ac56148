package sandbox

import "testing"

func TestKernelRelease(t *testing.T) {
	for release, want := range map[string]bool{
		"6.18.44-amd64": true, "5.14.0": true, "5.14": true, "5.15-rc1": true, "5.13.19": false, "4.19.0": false, "": false, "x.y": false, "10.0.1": true, "6.1+": true,
	} {
		if err := checkRelease(release); (err == nil) != want {
			t.Errorf("%q: %v", release, err)
		}
	}
}
