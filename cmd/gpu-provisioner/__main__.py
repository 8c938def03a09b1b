from kaito.provisioner.main import main

main()
