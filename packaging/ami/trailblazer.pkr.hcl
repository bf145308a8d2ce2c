# Machine images with Trailblazer installed: Debian 12, Debian 13, Ubuntu 24.04, Amazon Linux 2023,
# each for amd64 and arm64. docs/aws.md explains each step.
#
#   make packages
#   cd packaging/ami
#   packer init .
#   packer build .                                       # all eight
#   packer build -only='*.debian-13-arm64' .             # one

locals {
  stamp = formatdate("YYYYMMDD-hhmmss", timestamp())

  # Filters for all source images.
  any = {
    root-device-type    = "ebs"
    virtualization-type = "hvm"
  }
}

source "amazon-ebs" "trailblazer" {
  region                      = var.region
  subnet_id                   = var.subnet_id
  associate_public_ip_address = true

  ami_description = "Trailblazer ${var.version}"

  # Instances of the image require version 2 of the metadata service, the only version that the agent
  # speaks. The build machine requires version 2 as well.
  imds_support = "v2.0"
  metadata_options {
    http_endpoint               = "enabled"
    http_tokens                 = "required"
    http_put_response_hop_limit = 1
  }

  # A temporary key for this build. Some sshd versions no longer accept RSA.
  temporary_key_pair_type   = "ed25519"
  ssh_clear_authorized_keys = true

  tags = merge(var.tags, {
    Source    = "{{ .SourceAMIName }}"
    Version   = var.version
    Component = "trailblazer"
  })
  snapshot_tags = merge(var.tags, { Component = "trailblazer" })
  # iam/packer.json lets Packer stop and terminate only instances with this tag.
  run_tags = {
    Name      = "packer-trailblazer"
    Component = "trailblazer-build"
  }
  run_volume_tags = { Component = "trailblazer-build" }
}

build {
  source "amazon-ebs.trailblazer" {
    name          = "debian-12-amd64"
    ami_name      = "trailblazer-${var.version}-debian-12-amd64-${local.stamp}"
    instance_type = var.instance_types.amd64
    ssh_username  = "admin"
    source_ami_filter {
      owners      = ["136693071363"] # Debian
      most_recent = true
      filters     = merge(local.any, { name = "debian-12-amd64-*", architecture = "x86_64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/xvda"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  source "amazon-ebs.trailblazer" {
    name          = "debian-12-arm64"
    ami_name      = "trailblazer-${var.version}-debian-12-arm64-${local.stamp}"
    instance_type = var.instance_types.arm64
    ssh_username  = "admin"
    source_ami_filter {
      owners      = ["136693071363"] # Debian
      most_recent = true
      filters     = merge(local.any, { name = "debian-12-arm64-*", architecture = "arm64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/xvda"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  source "amazon-ebs.trailblazer" {
    name          = "debian-13-amd64"
    ami_name      = "trailblazer-${var.version}-debian-13-amd64-${local.stamp}"
    instance_type = var.instance_types.amd64
    ssh_username  = "admin"
    source_ami_filter {
      owners      = ["136693071363"] # Debian
      most_recent = true
      filters     = merge(local.any, { name = "debian-13-amd64-*", architecture = "x86_64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/xvda"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  source "amazon-ebs.trailblazer" {
    name          = "debian-13-arm64"
    ami_name      = "trailblazer-${var.version}-debian-13-arm64-${local.stamp}"
    instance_type = var.instance_types.arm64
    ssh_username  = "admin"
    source_ami_filter {
      owners      = ["136693071363"] # Debian
      most_recent = true
      filters     = merge(local.any, { name = "debian-13-arm64-*", architecture = "arm64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/xvda"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  source "amazon-ebs.trailblazer" {
    name          = "ubuntu-24.04-amd64"
    ami_name      = "trailblazer-${var.version}-ubuntu-24.04-amd64-${local.stamp}"
    instance_type = var.instance_types.amd64
    ssh_username  = "ubuntu"
    source_ami_filter {
      owners      = ["099720109477"] # Canonical
      most_recent = true
      filters     = merge(local.any, { name = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-amd64-server-*", architecture = "x86_64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/sda1"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  source "amazon-ebs.trailblazer" {
    name          = "ubuntu-24.04-arm64"
    ami_name      = "trailblazer-${var.version}-ubuntu-24.04-arm64-${local.stamp}"
    instance_type = var.instance_types.arm64
    ssh_username  = "ubuntu"
    source_ami_filter {
      owners      = ["099720109477"] # Canonical
      most_recent = true
      filters     = merge(local.any, { name = "ubuntu/images/hvm-ssd-gp3/ubuntu-noble-24.04-arm64-server-*", architecture = "arm64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/sda1"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  source "amazon-ebs.trailblazer" {
    name          = "amazon-linux-2023-amd64"
    ami_name      = "trailblazer-${var.version}-amazon-linux-2023-amd64-${local.stamp}"
    instance_type = var.instance_types.amd64
    ssh_username  = "ec2-user"
    source_ami_filter {
      owners      = ["137112412989"] # Amazon
      most_recent = true
      filters     = merge(local.any, { name = "al2023-ami-2023.*-kernel-6.1-x86_64", architecture = "x86_64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/xvda"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  source "amazon-ebs.trailblazer" {
    name          = "amazon-linux-2023-arm64"
    ami_name      = "trailblazer-${var.version}-amazon-linux-2023-arm64-${local.stamp}"
    instance_type = var.instance_types.arm64
    ssh_username  = "ec2-user"
    source_ami_filter {
      owners      = ["137112412989"] # Amazon
      most_recent = true
      filters     = merge(local.any, { name = "al2023-ami-2023.*-kernel-6.1-arm64", architecture = "arm64" })
    }
    launch_block_device_mappings {
      device_name           = "/dev/xvda"
      volume_type           = "gp3"
      iops                  = 3000
      throughput            = 125
      encrypted             = true
      kms_key_id            = var.kms_key_id
      delete_on_termination = true
    }
  }

  provisioner "file" {
    only        = ["amazon-ebs.debian-12-amd64", "amazon-ebs.debian-13-amd64", "amazon-ebs.ubuntu-24.04-amd64"]
    source      = "${var.packages}/trailblazer_${var.version}_amd64.deb"
    destination = "/tmp/trailblazer.deb"
  }

  provisioner "file" {
    only        = ["amazon-ebs.debian-12-arm64", "amazon-ebs.debian-13-arm64", "amazon-ebs.ubuntu-24.04-arm64"]
    source      = "${var.packages}/trailblazer_${var.version}_arm64.deb"
    destination = "/tmp/trailblazer.deb"
  }

  provisioner "file" {
    only        = ["amazon-ebs.amazon-linux-2023-amd64"]
    source      = "${var.packages}/trailblazer-${var.version}.x86_64.rpm"
    destination = "/tmp/trailblazer.rpm"
  }

  provisioner "file" {
    only        = ["amazon-ebs.amazon-linux-2023-arm64"]
    source      = "${var.packages}/trailblazer-${var.version}.aarch64.rpm"
    destination = "/tmp/trailblazer.rpm"
  }

  provisioner "file" {
    source      = "files/cloud-init.conf"
    destination = "/tmp/cloud-init.conf"
  }

  provisioner "shell" {
    execute_command = "sudo {{ .Vars }} sh '{{ .Path }}'"
    scripts = [
      "provision/install.sh",
      "provision/bake.sh",
      "provision/clean.sh",
    ]
  }

  post-processor "manifest" {
    output = "images.json"
  }
}
