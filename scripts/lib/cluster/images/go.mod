module mykube-e2e-images

go 1.19
